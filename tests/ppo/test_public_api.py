"""The public library: its names, their parameters, its defaults and its example."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import rlhfctl.maths
import rlhfctl.ppo
from rlhfctl.ppo import PPOSettings, PPOTrainer
from rlhfctl.recipe.ppo import KLControllerSection
from rlhfctl.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]
PPO_NAMES = {
    *("HeldOutEvaluation", "HeldOutEvaluator", "PPOSettings", "PPOTrainer", "Processes"),
    *("RewardSource", "Rewards", "Roles", "Rollout", "TrainedRole"),
}
MATHS_NAMES = {
    *("Advantages", "Clipped", "RunningMoments", "Seed", "Sequences", "TokenLogProbs"),
    *("adapt_beta", "batch_mean_advantages", "bradley_terry_loss", "clipped_surrogate"),
    *("clipped_value_loss", "combine_scores", "explained_variance", "generalized_advantages"),
    *(
        "group_normalized_advantages",
        "leave_one_out_advantages",
        "importance_ratio",
        "inverse_cdf",
        "k1",
        "k2",
        "k3",
        "length_mask",
        "masked_mean",
    ),
    *("masked_sum", "masked_variance", "shape_rewards", "token_log_probs", "uniform_numbers"),
    "whiten",
}


@pytest.mark.parametrize(
    ("module", "names"), [(rlhfctl.ppo, PPO_NAMES), (rlhfctl.maths, MATHS_NAMES)]
)
def test_public_names_are_pinned_and_each_one_loads(module, names):
    assert set(module.__all__) == names
    assert all(getattr(module, name) is not None for name in names)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_trainer_parameters_are_pinned():
    assert list(inspect.signature(PPOTrainer).parameters) == [
        *("roles", "prompts", "settings", "monitor", "keep_samples", "checkpoints"),
        *("rewards", "demonstrations", "processes", "evaluator", "engine"),
    ]
    assert list(inspect.signature(PPOTrainer.train).parameters) == ["self"]


def test_default_settings_equal_the_recipe():
    recipe, settings = Recipe(), PPOSettings()
    elsewhere = {"kl_target", "kl_horizon", "seed", "auto_batch", "sampling_batch_size"}
    of_engine = {"max_mismatch", "importance_sampling_clip_max"}
    for name in of_engine:
        assert getattr(settings, name) == getattr(recipe.ppo.vllm, name), name
    for field in fields(PPOSettings):
        if field.name not in elsewhere | of_engine:
            assert getattr(settings, field.name) == getattr(recipe.ppo, field.name), field.name
    assert settings.seed == recipe.seed
    assert settings.auto_batch == recipe.auto_batch
    assert settings.sampling_batch_size == recipe.generation.batch_size
    assert settings.kl_target is None
    assert recipe.ppo.kl_controller is None
    assert settings.kl_horizon == KLControllerSection.model_fields["horizon"].default


def test_importing_the_library_does_not_load_torch():
    code = "import sys, rlhfctl, rlhfctl.ppo, rlhfctl.maths; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_example_raises_its_expected_reward():
    result = subprocess.run(
        [sys.executable, "examples/toy_policy.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, after = map(float, re.findall(r"\d+\.\d+", result.stdout))
    assert after > before + 0.5
