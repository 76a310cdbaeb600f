"""Loaded roles, prompts and responses that the parts of an evaluation share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rlhfctl.data.sources import load_comparisons, load_demonstrations
from rlhfctl.run.files import CHECKPOINTS, RESPONSES
from rlhfctl.stages.shared.held_out_rm import held_out_rm_source
from rlhfctl.stages.shared.response_batches import ResponseBatches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.data.sources import Split
    from rlhfctl.data.subsets import Subsets
    from rlhfctl.evaluation.policies import Responses
    from rlhfctl.models.foreign_scorer import ForeignScorer
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import RewardSource
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.prompt_rows import PromptRows
    from rlhfctl.stages.shared.reward_functions import UserFunction
    from rlhfctl.stages.shared.reward_sources import RewardSources
    from rlhfctl.stages.shared.stage_context import StageContext


def saved_batches(output: Path, name: str) -> ResponseBatches:
    """Return the responses that an interrupted evaluation has saved under a name."""
    return ResponseBatches(output / CHECKPOINTS / f"{RESPONSES}{name}.jsonl")


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
        sources: Reward sources, opened.
        rows: The prompts with the columns that some function or server receives.
        judge_function: `evaluation.judge_function`, if set.
        foreign_judge: The held-out reward model, where it is one from elsewhere.
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
    sources: RewardSources
    rows: PromptRows
    judge_function: UserFunction | None = None
    foreign_judge: ForeignScorer | None = None
    subsets: Subsets | None = None

    @property
    def recipe(self) -> Recipe:
        """The whole recipe."""
        return self.session.recipe

    def held_out_rm(self, rows: PromptRows) -> RewardSource | None:
        """Return the held-out reward model for some prompts, or None."""
        return held_out_rm_source(
            self.recipe, self.inputs, self.roles, self.foreign_judge, self.session.formatter, rows
        )

    @cached_property
    def comparisons(self) -> Split:
        """The recipe's comparisons, read once for all parts; raises as `load_comparisons` does."""
        return load_comparisons(self.recipe)

    @cached_property
    def demonstrations(self) -> Split:
        """The recipe's demonstrations; raises as `load_demonstrations` does."""
        return load_demonstrations(self.recipe)
