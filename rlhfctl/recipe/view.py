"""The part of a recipe that one stage may read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rlhfctl.recipe.base import Section

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stage_table import Stage

_SectionT = TypeVar("_SectionT", bound=Section)


def view(recipe: Recipe, stage: Stage) -> Recipe:
    """Return a copy of a recipe on which only the keys that a stage declares can be read.

    Reading any other key raises `UndeclaredReadError`: a result would depend on a key that its
    record does not hold, so a change of that key would leave the result "up to date".

    Args:
        recipe: The whole recipe, or a view that holds the stage's keys.
        stage: Declares its keys by `Stage.reads` and `Stage.excludes`.
    """
    return _restricted(recipe, "", stage)


def stage_part(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """Return the values of the keys that a stage's result depends on, as plain JSON values.

    Those are the keys that it declares, since it is given no others, without its neutral ones.
    """
    part = view(recipe, stage).model_dump(mode="json")
    for key in stage.neutral:
        *sections, name = key.split(".")
        values = part
        for section in sections:
            values = values[section]
        del values[name]
    return part


def default_part(stage: Stage) -> dict[str, Any]:
    """Return the defaults of the keys in a `stage_part`."""
    from rlhfctl.recipe.schema import Recipe

    return stage_part(Recipe(), stage)


def _restricted(section: _SectionT, path: str, stage: Stage) -> _SectionT:
    readable: dict[str, Any] = {}
    for name, value in section.__dict__.items():
        key = f"{path}.{name}" if path else name
        declared = bool(stage.declared([key]))
        partial = _contains(key, stage.excludes if declared else stage.reads)
        if partial and isinstance(value, Section):
            readable[name] = _restricted(value, key, stage)
        elif declared:
            readable[name] = value
    return section.restricted_to(readable, stage.name, path)


def _contains(key: str, declared: tuple[str, ...]) -> bool:
    """Return whether a declared key lies below this one."""
    return any(name.startswith(f"{key}.") for name in declared)
