"""Checks of options before anything runs."""

import pytest

from rlhfctl.cli.validation import require_known_changes
from rlhfctl.errors import UsageError


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
