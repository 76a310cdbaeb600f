"""What FSDP cannot spread is refused by name, before any model is loaded."""

import pytest

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.models import sharding


@pytest.fixture(autouse=True)
def launched(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")


@pytest.mark.parametrize(
    ("run", "words"), [("tiny_full_run", "lora: null"), ("tiny_4bit_run", "quantised base")]
)
def test_a_base_that_is_trained_or_quantised(request, run, words):
    with pytest.raises(RecipeError, match=words):
        sharding.check(request.getfixturevalue(run).recipe)


def test_the_first_version_of_fsdp(tiny_run, monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError, match="FSDP2 only"):
        sharding.check(tiny_run.recipe)


def test_adapters_on_a_plain_base_can_be_spread(tiny_run, monkeypatch):
    sharding.check(tiny_run.recipe)
    assert sharding.asked_for()
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert not sharding.asked_for()
