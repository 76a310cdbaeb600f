"""Lookups in the schema: keys by path, the types of their values, suggestions for misspelt ones."""

from __future__ import annotations

import difflib
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from rlhfctl.recipe.base import Section
from rlhfctl.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.strict_yaml import KeyPath


def options(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a type, unpacked from Annotated, Optional and Union."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return options(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return tuple(choice for part in get_args(annotation) for choice in options(part))
    return (annotation,)


def section_of(annotation: Any) -> type[Section] | None:
    """Return the section class of a type, or None if it has none."""
    for choice in options(annotation):
        if isinstance(choice, type) and issubclass(choice, Section):
            return choice
    return None


def section_in(annotation: Any) -> type[Section] | None:
    """Return the section class of a list's items, or None if the type is no list of sections."""
    for choice in options(annotation):
        if get_origin(choice) is list:
            return section_of(get_args(choice)[0])
    return None


def is_table(annotation: Any) -> bool:
    """Return whether a type is a mapping with user-defined keys, such as `columns`."""
    return any(get_origin(choice) is dict for choice in options(annotation))


def takes_text(annotation: Any) -> bool:
    """Return whether a value of this type may be text, free or one of several words."""
    return any(choice is str or get_origin(choice) is Literal for choice in options(annotation))


def takes_null(annotation: Any) -> bool:
    """Return whether a value of this type may be null."""
    return any(choice in (None, NoneType) for choice in options(annotation))


def takes_list(annotation: Any) -> bool:
    """Return whether a value of this type may be a list."""
    return any(get_origin(choice) is list for choice in options(annotation))


def annotation_at(path: KeyPath) -> Any | None:
    """Return the type of the key at a path, or None if the schema has no such key."""
    annotation: Any = Recipe
    for position, key in enumerate(path):
        section = section_of(annotation)
        item = section_in(annotation)
        if section is None and item is not None and key.isdigit():
            annotation = item
            continue
        if section is None:
            if is_table(annotation) and position == len(path) - 1:
                return str
            return None
        if key not in section.model_fields:
            return None
        annotation = section.model_fields[key].annotation
    return annotation


def split_key(dotted: str) -> KeyPath:
    """Split a dotted key; below a mapping with user-defined keys, the rest is one key."""
    parts = tuple(dotted.split("."))
    for end in range(1, len(parts)):
        if is_table(annotation_at(parts[:end])):
            return (*parts[:end], ".".join(parts[end:]))
    return parts


def all_keys(section: type[Section] = Recipe, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key of the schema, sections included."""
    for key, information in section.model_fields.items():
        path = (*above, key)
        yield path
        below = section_of(information.annotation)
        if below is not None:
            yield from all_keys(below, path)


def suggest(path: KeyPath) -> str:
    """Return a hint for an unknown key; empty if there is none."""
    section = section_of(annotation_at(path[:-1]))
    siblings = [] if section is None else list(section.model_fields)
    close = difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    elsewhere = [".".join(key) for key in all_keys() if key[-1] == path[-1]]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    if 0 < len(siblings) <= 12:
        return f"known here: {', '.join(siblings)}"
    return ""
