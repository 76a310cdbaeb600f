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
    """Return the values of the keys that a stage declares, as plain JSON values.

    A stage's result depends on these keys only, since it is given no others.
    """
    return view(recipe, stage).model_dump(mode="json")


def is_declared(key: str, stage: Stage) -> bool:
    """Whether a stage declares that it reads a key."""
    return _is_below(key, stage.reads) and not _is_below(key, stage.excludes)


def _restricted(section: _SectionT, path: str, stage: Stage) -> _SectionT:
    readable: dict[str, Any] = {}
    for name, value in section.__dict__.items():
        key = f"{path}.{name}" if path else name
        if _is_below(key, stage.excludes):
            continue
        declared = _is_below(key, stage.reads)
        partial = _contains(key, stage.excludes if declared else stage.reads)
        if partial and isinstance(value, Section):
            readable[name] = _restricted(value, key, stage)
        elif declared:
            readable[name] = value
    return section.restricted_to(readable, stage.name, path)


def _is_below(key: str, declared: tuple[str, ...]) -> bool:
    """Whether a key is one of the declared ones or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in declared)


def _contains(key: str, declared: tuple[str, ...]) -> bool:
    """Whether a declared key lies below this one."""
    return any(name.startswith(f"{key}.") for name in declared)
