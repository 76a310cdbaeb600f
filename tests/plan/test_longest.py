"""The longest response that fits, with peaks that are a line through the length."""

from types import SimpleNamespace

import pytest

from rlhfctl.plan import longest
from rlhfctl.plan.target import GIB


@pytest.fixture
def linear(monkeypatch):
    """Peaks of 10 GB plus some per token, for a model of 4,096 positions."""

    def make(per_token: float) -> SimpleNamespace:
        monkeypatch.setattr(longest, "_positions", lambda _planned: 4096)
        monkeypatch.setattr(longest, "with_settings", lambda _recipe, changed: changed)
        monkeypatch.setattr(longest, "replace", lambda planned, recipe: SimpleNamespace(**recipe))
        monkeypatch.setattr(longest, "_sized", lambda _target, size: size * GIB)
        monkeypatch.setattr(longest, "roomy", lambda memory: memory)

        def peak(planned: SimpleNamespace, _stage: str) -> SimpleNamespace:
            length = vars(planned)["generation.max_new_tokens"]
            return SimpleNamespace(
                split=SimpleNamespace(total=int((10 + per_token * length) * GIB))
            )

        monkeypatch.setattr(longest, "peak_of_stage", peak)
        return SimpleNamespace(target=None, recipe=None)

    return make


@pytest.mark.parametrize("per_token", [0.001, 0.01, 0.03, 0.2, 10.0])
def test_a_result_fits_and_16_tokens_more_do_not(linear, per_token):
    for size, length in longest.longest_responses(linear(per_token)).items():
        assert length == 0 or 10 + per_token * length <= size
        assert length == 4096 or 10 + per_token * (length + 16) > size
