"""Loaded roles, prompts and responses that the parts of an evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlhfctl.data.sources import load_comparisons, load_demonstrations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.data.sources import Split
    from rlhfctl.data.subsets import Subsets
    from rlhfctl.evaluation.policies import Responses
    from rlhfctl.models.roles import Roles
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


@dataclass(frozen=True)
class EvalContext:
    """State shared by the parts of an evaluation.

    Attributes:
        session: Recipe, tokenizer and formatting.
        inputs: `sft`; `rm` and `ppo` where they exist.
        roles: Over the base: reference (SFT), policy (PPO, where it exists), reward models.
        prompts: [prompts] held-out prompts as in the data, text or messages.
        prompt_ids: [prompts] their token ids.
        policies: `sft`, and `ppo` where it exists: responses to the same prompts.
        output: The stage's output folder.
        monitor: Progress monitor.
        subsets: Rows of the `evaluation.reward_bench` file, if set.
    """

    session: StageContext
    inputs: Mapping[str, Path]
    roles: Roles
    prompts: Sequence[Any]
    prompt_ids: Sequence[Sequence[int]]
    policies: Mapping[str, Responses]
    output: Path
    monitor: Monitor
    subsets: Subsets | None = None

    @property
    def recipe(self) -> Recipe:
        """The whole recipe."""
        return self.session.recipe

    @cached_property
    def comparisons(self) -> Split:
        """The recipe's comparisons, read once for all parts; raises as `load_comparisons` does."""
        return load_comparisons(self.recipe)

    @cached_property
    def demonstrations(self) -> Split:
        """The recipe's demonstrations; raises as `load_demonstrations` does."""
        return load_demonstrations(self.recipe)
