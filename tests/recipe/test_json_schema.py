"""The JSON Schema of a recipe: complete, current, and in every shipped recipe's first line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlhfctl.recipe.json_schema import EDITOR_LINE, SCHEMA_FILE, recipe_schema, schema_text
from rlhfctl.recipe.keys import all_keys
from rlhfctl.recipe.library_names import ATTENTIONS
from rlhfctl.recipe.load import shipped_recipes

SCHEMA = recipe_schema()


def keys(node: dict[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of the schema with its own part, references followed."""
    for name, part in node.get("properties", {}).items():
        yield f"{above}{name}", part
        for choice in [part, part.get("items", {}), *part.get("anyOf", [])]:
            reference = choice.get("$ref", "").removeprefix("#/$defs/")
            if reference:
                yield from keys(SCHEMA["$defs"][reference], f"{above}{name}.")


KEYS = dict(keys(SCHEMA))


def test_the_shipped_file_is_current():
    path = shipped_recipes()[0].parent / SCHEMA_FILE
    assert path.read_text(encoding="utf-8") == schema_text(), (
        "run `rlhfctl schema > recipes/recipe.schema.json` and commit the result"
    )


def test_no_key_is_missing():
    assert {".".join(path) for path in all_keys()} | {"extends"} <= set(KEYS)
    assert "ppo.reward_sources.source" in KEYS


@pytest.mark.parametrize("key", KEYS)
def test_a_key_has_a_description(key):
    assert KEYS[key]["description"].endswith(".")


def test_unknown_keys_and_names_are_errors_for_an_editor_too():
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections)
    assert "lion_8bit" in KEYS["sft.optim"]["enum"]
    assert KEYS["model.attn_implementation"]["anyOf"][0] == {"enum": [*ATTENTIONS]}


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.name)
def test_a_shipped_recipe_names_the_schema_first(path):
    assert path.read_text(encoding="utf-8").splitlines()[0] == EDITOR_LINE
