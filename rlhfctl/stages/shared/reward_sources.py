"""Reward sources of a recipe: reward models, functions and servers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.data.columns import column_names, read_columns
from rlhfctl.errors import CheckpointError
from rlhfctl.models.foreign_files import is_foreign, short_name
from rlhfctl.models.foreign_scorer import ForeignScorer
from rlhfctl.ppo.rewards import Rewards, RewardSource
from rlhfctl.stages.shared.foreign_rewards import ForeignSource
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_functions import (
    KEY,
    FunctionSource,
    UserFunction,
    import_function,
)
from rlhfctl.stages.shared.reward_server import RewardServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from torch import Tensor

    from rlhfctl.data.formatter import Formatter
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.models.heads import ScoreNormalization
    from rlhfctl.models.roles import Roles
    from rlhfctl.recipe.ppo import PPOSection
    from rlhfctl.recipe.reward_sources import RewardSourceSection
    from rlhfctl.recipe.schema import Recipe


def foreign_sources(section: PPOSection) -> list[RewardSourceSection]:
    """Return the sources that are reward models from elsewhere, in recipe order."""
    return [
        source
        for source in section.reward_sources
        if source.kind in {"hub", "folder"} and is_foreign(source.source)
    ]


def extra_reward_models(section: PPOSection) -> list[Path]:
    """Return the folders of `train-rm` besides the run's reward model, in recipe order.

    None where their weights are averaged: the average takes the place of the run's reward model.

    Raises:
        CheckpointError: A folder does not exist.
    """
    if section.reward_rule == "weight_average":
        return []
    folders = [
        Path(source.source).expanduser()
        for source in section.reward_sources
        if source.kind == "folder" and not is_foreign(source.source)
    ]
    for folder in folders:
        if not folder.is_dir():
            raise CheckpointError(
                "the folder of a reward model does not exist",
                f"ppo.reward_sources: {folder}",
                "Name a folder of a reward model, `rm`, `hub:ID`, `module:function`, or an http "
                "address.",
            )
    return folders


@dataclass(frozen=True)
class RewardSources:
    """A recipe's reward sources, opened once per stage: functions imported, models loaded.

    Attributes:
        section: Sources with their weights and the rule that combines them.
        functions: Source -> function or server.
        scorers: Source -> reward model from elsewhere, once loaded.
        scales: Source -> scale of its scores, for those that are normalised.
    """

    section: PPOSection
    functions: dict[str, UserFunction]
    scorers: dict[str, ForeignScorer] = field(default_factory=dict)
    scales: dict[str, ScoreNormalization] = field(default_factory=dict)

    @classmethod
    def open(cls, section: PPOSection) -> RewardSources:
        """Import the functions, before any model is loaded.

        Raises:
            RecipeError: A function cannot be imported.
        """
        functions = {}
        for source in section.reward_sources:
            if source.kind == "function":
                functions[source.source] = UserFunction.of(
                    source.source, import_function(source.source), limit=source.timeout_seconds
                )
            elif source.kind == "server":
                functions[source.source] = UserFunction.of(
                    source.source,
                    RewardServer(source),
                    limit=source.timeout_seconds,
                    kind="the reward server",
                )
        return cls(section, functions)

    def load_scorers(self, rows: PromptRows) -> None:
        """Load the reward models from elsewhere, each once.

        Args:
            rows: Prompts that they will be given.

        Raises:
            CheckpointError: One is no sequence classifier with one output, lacks files, or has no
                chat template for conversations.
            EnvironmentFault: One cannot be downloaded or loaded.
            RecipeError: A chat template cannot be read, or is needed and missing.
            UnsafeError: One needs its own code, or has weights in pickle files only.
        """
        for source in foreign_sources(self.section):
            scorer = ForeignScorer.load(source.source, source, KEY)
            scorer.inputs.check(rows.prompts[0])
            self.scorers[source.source] = scorer

    def revisions(self) -> list[str]:
        """Return a note per reward model of the Hub with the commit that was loaded."""
        return [
            f"{source}: commit {scorer.revision}"
            for source, scorer in self.scorers.items()
            if scorer.revision
        ]

    def normalised_scorers(self) -> dict[str, ForeignScorer]:
        """Return the loaded models whose scores are normalised over SFT responses."""
        return {
            source.source: self.scorers[source.source]
            for source in self.section.reward_sources
            if source.source in self.scorers and source.normalization == "sft"
        }

    def rows(
        self, recipe: Recipe, encoded: Dataset, others: Sequence[UserFunction] = ()
    ) -> PromptRows:
        """Return prompts with the columns that some function or server receives.

        Args:
            recipe: Recipe; the source of prompts is read again if there are such columns.
            encoded: Result of `encode_prompts`.
            others: Functions besides the reward sources that are given the same prompts.

        Raises:
            DataError: The source cannot be read.
            RecipeError: A function needs a column that the prompts do not have.
        """
        receivers = [(function, None) for function in others] + [
            (self.functions[source.source], source.columns)
            for source in self.section.reward_sources
            if source.source in self.functions
        ]
        names: set[str] | None = set()
        for function, columns in receivers:
            requested = function.accepts if columns is None else frozenset(columns)
            names = None if names is None or requested is None else names | requested
        rows = PromptRows(encoded["prompt"], read_columns(recipe, encoded, names))
        for function, columns in receivers:
            chosen = rows.only(columns, f"{function.key}: {function.name}")
            function.check(chosen.columns, partial(column_names, recipe))
        return rows

    def over(self, roles: Roles, formatter: Formatter, rows: PromptRows) -> Rewards:
        """Return the sources for one set of prompts, with the rule that combines them.

        Args:
            roles: Roles whose reward models are the run's, if it is a source, then the folders of
                `extra_reward_models`.
            formatter: Decodes responses to text.
            rows: Prompts with their columns.
        """
        if self.section.reward_rule == "weight_average":
            return Rewards([ModelSource("averaged_rm", roles, 0)], [1.0])
        sources: list[RewardSource] = []
        index = int(self.section.uses_rm)
        for source in self.section.reward_sources:
            name = source.source
            if name in self.scorers:
                sources.append(
                    ForeignSource(
                        short_name(name), self.scorers[name], formatter, rows, self.scales.get(name)
                    )
                )
            elif name in self.functions:
                function = self.functions[name]
                chosen = rows.only(source.columns, f"{KEY}: {name}")
                messages = source.completions == "messages"
                sources.append(
                    FunctionSource(_name(source), function, formatter, chosen, messages=messages)
                )
            elif source.kind == "rm":
                sources.append(ModelSource("rm", roles, 0))
            else:
                sources.append(ModelSource(Path(name).name, roles, index))
                index += 1
        return Rewards(
            _with_unique_names(sources),
            [source.weight for source in self.section.reward_sources],
            self.section.reward_rule,
            self.section.uncertainty_penalty,
        )


def _name(source: RewardSourceSection) -> str:
    import httpx2

    return httpx2.URL(source.source).host if source.kind == "server" else source.source


def _with_unique_names(sources: list[RewardSource]) -> list[RewardSource]:
    names = [source.name for source in sources]
    for index, source in enumerate(sources):
        if names.count(source.name) > 1:
            source.name = f"{source.name}_{index}"
    return sources


class ModelSource:
    """A reward model among the roles."""

    def __init__(self, name: str, roles: Roles, index: int) -> None:
        """Store the roles and the index of the reward model."""
        self.name = name
        self.roles = roles
        self.index = index

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return normalised scores, [B]."""
        return self.roles.scores(batch, self.index)
