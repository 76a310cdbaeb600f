"""Lists of sources in place of a data section, and which layer's sources count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.recipe.data import SOURCE_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.strict_yaml import KeyPath

SOURCES = "sources"
DATA_KINDS = ("demonstrations", "comparisons", "prompts")


def with_sections(
    values: dict[str, Any], origins: dict[KeyPath, str]
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Return a layer in which `demonstrations: [...]` is `demonstrations: {sources: [...]}`.

    Args:
        values: The values of a file or an override.
        origins: Key path -> origin; paths within the list are moved alike.
    """
    data = values.get("data")
    if not isinstance(data, dict):
        return values, origins
    lists = {kind for kind in DATA_KINDS if isinstance(data.get(kind), list)}
    sections = {kind: {SOURCES: data[kind]} for kind in lists}
    moved = {
        (*path[:2], SOURCES, *path[2:])
        if path[:1] == ("data",) and len(path) > 2 and path[1] in lists
        else path: origin
        for path, origin in origins.items()
    }
    for kind in lists:
        if ("data", kind) in origins:
            moved["data", kind, SOURCES] = origins["data", kind]
    return values | {"data": data | sections}, moved


def replaced_keys(above: dict[str, Any]) -> Iterator[KeyPath]:
    """Yield the keys of lower layers that a layer's sources replace.

    Sources replace the one source with the keys that belong to it, and a source replaces several.
    """
    data = above.get("data")
    for kind in DATA_KINDS:
        section = data.get(kind) if isinstance(data, dict) else None
        if not isinstance(section, dict):
            continue
        if section.get(SOURCES):
            yield from (("data", kind, key) for key in SOURCE_KEYS)
        elif "source" in section:
            yield from (("data", kind, key) for key in (SOURCES, "oversample"))
