"""The scale of scores: from SFT's responses that ended, as many as requested, or else it says so."""

import numpy as np
import pytest

from rlhfctl.errors import DivergedError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared import score_normalization
from rlhfctl.stages.shared.calibration import responses_used
from rlhfctl.stages.shared.score_normalization import (
    CalibrationSample,
    normalize_scores,
)
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from tests.conftest import tiny_recipe
from tests.present import present


class Warnings(NullMonitor):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, message: str) -> None:
        self.texts.append(message)


@pytest.fixture
def calibrated(tiny_run, tmp_path):
    """A function that calibrates the tiny run's reward model under changed sampling."""
    import shutil

    def calibrate(*overrides):
        folder = tmp_path / "rm"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_run.stage("rm"), folder)
        warnings = Warnings()
        context = open_stage_context(tiny_recipe(*overrides))
        result = normalize_scores(context, tiny_run.stage("sft"), [folder], warnings)
        assert ScoreNormalization.load(folder) == result.normalizations[0]
        return result, warnings.texts

    return calibrate


def sampled(tiny_run, recipe, count):
    """Scores and ends of the first `count` responses, one forward pass each: a slow reference."""
    from rlhfctl.data.formatting import encode_prompts
    from rlhfctl.data.sources import load_prompts

    context = open_stage_context(recipe)
    roles = open_roles(context, {"sft": tiny_run.stage("sft"), "rm": tiny_run.stage("rm")})
    rows = load_prompts(recipe).train
    prompts = encode_prompts(rows, context.formatter, 512).dataset["input_ids"]
    scores, ended = [], []
    for row in range(count):
        prompt = prompts[row % len(prompts)]
        (response,) = roles.generate([prompt], [(recipe.seed, row)], "reference")
        batch = Sequences.from_lists([prompt], [response], roles.pad_token_id, roles.device)
        scores += roles.raw_scores(batch).tolist()
        ended.append(roles.ended(response))
    return np.array(scores), np.array(ended)


def test_sampling_continues_until_enough_responses_have_ended(tiny_run, calibrated):
    overrides = ("generation.max_new_tokens=8",)
    result, warnings = calibrated(*overrides)
    scores, ended = sampled(tiny_run, tiny_recipe(*overrides), 128)
    assert 0 < ended[:32].sum() < 32, "some of those requested did not end"
    (scale,) = result.normalizations
    count = round(scale.samples / result.eos_share)
    used = scores[:count][ended[:count]]
    assert warnings == []
    assert scale.samples == len(used) >= 32
    assert ended[: count - 16].sum() < 32, "the last batch was needed"
    assert scale.mean == pytest.approx(used.mean(), abs=1e-5)
    assert scale.deviation == pytest.approx(used.std(), abs=1e-5)
    assert result.eos_share == ended[:count].mean()


def test_where_too_few_end_all_give_the_scale_with_the_share_and_the_remedy(tiny_run, calibrated):
    overrides = ("generation.max_new_tokens=2", "reward_model.calibration_samples=16")
    result, (warning,) = calibrated(*overrides)
    scores, ended = sampled(tiny_run, tiny_recipe(*overrides), 64)
    assert result.normalizations[0].samples == 64, "four times the number requested"
    assert result.normalizations[0].deviation == pytest.approx(scores.std(), abs=1e-5)
    assert result.eos_share == ended.mean()
    assert f"only {ended.sum()} of 64 sampled SFT responses ended" in warning
    assert "generation.max_new_tokens (2)" in warning
    assert "train SFT longer" in warning


@pytest.mark.parametrize(
    ("ended", "used", "says"),
    [(40, 40, None), (32, 32, None), (31, 128, "all 128"), (0, 128, "only 0 of 128")],
)
def test_the_scale_is_that_of_the_ended_ones_if_they_are_enough(ended, used, says):
    flags = [True] * ended + [False] * (128 - ended)
    chosen, warning = responses_used(flags, tiny_recipe())
    assert chosen.sum() == used
    assert (warning is None) if says is None else (says in present(warning))


def test_a_scale_of_fewer_than_requested_says_so():
    flags = [True] * 40 + [False] * 216
    chosen, warning = responses_used(flags, tiny_recipe("reward_model.calibration_samples=64"))
    assert chosen.tolist() == flags
    assert "only 40 of 256" in present(warning)
    assert "reward_model.calibration_samples (64)" in present(warning)


def test_the_advice_on_equal_scores_follows_from_how_many_ended():
    normalization = score_normalization._normalization
    scores = np.ones(8)
    with pytest.raises(DivergedError, match="learning_rate"):
        normalization(scores, CalibrationSample([[]], [True] * 8), tiny_recipe())
    with pytest.raises(DivergedError, match="only 1 of 8") as caught:
        normalization(scores, CalibrationSample([[]], [True] + [False] * 7), tiny_recipe())
    assert "generation.max_new_tokens" in caught.value.hint
    assert "learning_rate" not in str(caught.value)
