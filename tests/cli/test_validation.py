"""Checks of options before anything runs."""

import pytest

from rlhfctl.cli.validation import require_known_changes, require_usable_model
from rlhfctl.console import Terminal
from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.recipe.schema import Recipe
from rlhfctl.stage_table import REWARD_MODEL, SFT


def test_keys_sections_and_inputs_may_change():
    require_known_changes(
        ["sft.learning_rate", "ppo", "data.prompts.columns.prompt", "rm", "ppo.reward_sources: a:b"]
    )


@pytest.mark.parametrize(
    ("key", "hint"), [("sft.learning_rat", "did you mean learning_rate?"), ("ppo.nokey", "")]
)
def test_a_key_that_there_is_not_is_refused(key, hint):
    with pytest.raises(UsageError, match="there is no recipe key or input") as error:
        require_known_changes([key])
    assert error.value.hint == hint


def test_a_stage_is_refused_for_a_package_that_its_own_keys_need(tmp_path):
    sections = {"reward_model": {"optim": "stable_adamw"}, "tracking": {"report_to": ["mlflow"]}}
    recipe = Recipe.model_validate(sections)
    require_usable_model(recipe, SFT, Terminal(quiet=True))
    with pytest.raises(EnvironmentFault, match="needs the package optimi"):
        require_usable_model(recipe, REWARD_MODEL, Terminal(quiet=True))
