"""Repositories of the Hub that the stages of a recipe read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from rlhfctl.data.files import is_local
from rlhfctl.data.forms import Kind
from rlhfctl.data.hub import require_hub_id
from rlhfctl.models.hub import model_source
from rlhfctl.recipe.reward_sources import HUB, RewardModelLoading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.data import DatasetSection, SourceSection
    from rlhfctl.recipe.schema import Recipe

Role = Literal["base model", "reward model", "data set"]


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, and where the recipe names it.

    Attributes:
        role: What it is to the recipe.
        id: Its id, such as ``org/name``.
        revision: Branch, tag or commit; None: the default branch.
        keys: Recipe keys that name it.
        config: Configuration of a data set; None: its default, or no data set.
        splits: Splits of a data set that are read; none for a model.
        runs_code: Whether the Python files of a base model are needed.
    """

    role: Role
    id: str
    revision: str | None
    keys: tuple[str, ...]
    config: str | None = None
    splits: tuple[str, ...] = ()
    runs_code: bool = False

    @property
    def is_data(self) -> bool:
        """Return whether it is a data set."""
        return self.role == "data set"

    @property
    def where(self) -> str:
        """Recipe keys and id, for errors."""
        return f"{', '.join(self.keys)}: {self.id}"


def needed_repositories(recipe: Recipe) -> list[Repository]:
    """Return the repositories that a whole run downloads from, each once, in the stages' order.

    Raises:
        DataError: A data source is neither a file nor the id of a Hub data set.
        EnvironmentFault: The base model is a path without a model.
        UnsafeError: The config of a local model would run code that the recipe does not allow.
    """
    merged: dict[Repository, Repository] = {}
    for repository in (*_models(recipe), *_data(recipe)):
        same = replace(repository, keys=(), splits=())
        before = merged.get(same, same)
        splits = dict.fromkeys((*before.splits, *repository.splits))
        merged[same] = replace(
            repository, keys=(*before.keys, *repository.keys), splits=tuple(splits)
        )
    return list(merged.values())


def local_inputs(recipe: Recipe) -> dict[str, str]:
    """Return the model and data sources on this machine, by recipe key."""
    sources = {"model.name_or_path": recipe.model.name_or_path}
    sources |= {key: part.source for key, part in _sources(recipe)}
    remote = {key for repository in needed_repositories(recipe) for key in repository.keys}
    remote |= streamed(recipe).keys()
    return {key: source for key, source in sources.items() if key not in remote}


def streamed(recipe: Recipe) -> dict[str, str]:
    """Return the data sets whose rows are read from the Hub when a stage runs, by recipe key."""
    return {
        key: part.source
        for key, part in _sources(recipe)
        if part.streaming and not is_local(part.source)
    }


def fetched_by_others(recipe: Recipe) -> dict[str, str]:
    """Return what packages download themselves when a stage runs, by recipe key."""
    downloads = {}
    if "/" in (recipe.model.attn_implementation or ""):
        downloads["model.attn_implementation"] = str(recipe.model.attn_implementation)
    tasks = [task for task in recipe.evaluation.tax.tasks if not Path(task).suffix]
    if tasks:
        downloads["evaluation.tax.tasks"] = ", ".join(tasks)
    return downloads


def _models(recipe: Recipe) -> Iterator[Repository]:
    section = recipe.model
    if not Path(source := model_source(section)).is_dir():
        yield Repository(
            "base model",
            source,
            section.revision,
            ("model.name_or_path",),
            runs_code=section.trust_remote_code,
        )
    judge, judge_loading = recipe.evaluation.judge_rm, recipe.evaluation.judge_rm_loading
    sources: list[tuple[str, str, RewardModelLoading]] = [
        (source.source, f"ppo.reward_sources[{place}].source", source)
        for place, source in enumerate(recipe.ppo.reward_sources)
    ]
    sources += [(judge, "evaluation.judge_rm", judge_loading)] if judge else []
    for name, key, loading in sources:
        if name.startswith(HUB):
            yield Repository("reward model", name.removeprefix(HUB), loading.revision, (key,))


def _data(recipe: Recipe) -> Iterator[Repository]:
    for key, part in _sources(recipe):
        if not part.is_generated and not part.streaming and not is_local(part.source):
            require_hub_id(part.source)
            yield Repository(
                "data set", part.source, part.revision, (key,), part.config, (part.split,)
            )


def _sources(recipe: Recipe) -> Iterator[tuple[str, SourceSection]]:
    """Yield the recipe key and the section of every data source."""
    for kind in get_args(Kind):
        section: DatasetSection = getattr(recipe.data, kind)
        for number, part in enumerate(section.parts):
            place = f"sources.{number}.source" if section.sources else "source"
            yield f"data.{kind}.{place}", part
