"""Commits of the Hub's repositories that a stage has read, by the recipe key that names each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.hub_commits import loaded_commit
from rlhfctl.recipe.mixture_lists import DATA_KINDS
from rlhfctl.recipe.reward_sources import HUB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.hub_commits import Kind
    from rlhfctl.recipe.data import DatasetSection
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stage_table import Stage


def read_repositories(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """Return the repositories that a stage of this process has read.

    Args:
        recipe: The whole recipe.
        stage: Declares the keys that it reads.

    Returns:
        Recipe key -> id and commit, such as ``org/name@0123456789abcdef0123456789abcdef01234567``.
    """
    repositories = {}
    for key, kind, name, revision in _named(recipe):
        commit = loaded_commit(kind, name, revision)
        # A list's place is no part of a declared name.
        if commit is not None and stage.declared([key.partition("[")[0]]):
            repositories[key] = f"{name}@{commit}"
    return repositories


def _named(recipe: Recipe) -> Iterator[tuple[str, Kind, str, str | None]]:
    """Yield key, kind, name and revision of whatever may be a repository."""
    yield "model.name_or_path", "model", recipe.model.name_or_path, recipe.model.revision
    for place, source in enumerate(recipe.ppo.reward_sources):
        name = source.source.removeprefix(HUB)
        yield f"ppo.reward_sources[{place}].source", "model", name, source.revision
    judge = recipe.evaluation.judge_rm
    if judge is not None:
        revision = recipe.evaluation.judge_rm_loading.revision
        yield "evaluation.judge_rm", "model", judge.removeprefix(HUB), revision
    for kind in DATA_KINDS:
        section: DatasetSection = getattr(recipe.data, kind)
        for number, part in enumerate(section.parts):
            inner = f".sources[{number}]" if section.sources else ""
            yield f"data.{kind}{inner}.source", "dataset", part.source, part.revision
