"""JSON Schema of a recipe, for editors and other programs."""

from __future__ import annotations

import json
from typing import Any

from rlhfctl.recipe.load import EXTENDS
from rlhfctl.recipe.mixture_lists import DATA_KINDS
from rlhfctl.recipe.schema import Recipe

SCHEMA_FILE = "recipe.schema.json"
"""Name of the schema's file beside the shipped recipes."""
EDITOR_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""First line of a recipe that has the schema beside it."""


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file, with a description for every key."""
    schema: dict[str, Any] = _without_titles(Recipe.model_json_schema())
    for kind in DATA_KINDS:
        section = schema["$defs"]["DataSection"]["properties"][kind]
        source = {"$ref": "#/$defs/MixtureSource"}
        section["anyOf"] = [
            {"$ref": section.pop("$ref")},
            {"type": "array", "items": source, "minItems": 1},
        ]
    extends = {
        "type": "string",
        "description": "Recipe to start from: a file relative to this one, or the name of a shipped "
        "recipe. Values of this file go on top.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rlhfctl recipe",
        **schema,
        "properties": {EXTENDS: extends, **schema["properties"]},
    }


def schema_text() -> str:
    """Return the schema as the text of its file."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _without_titles(node: Any) -> Any:
    """Remove the titles that pydantic makes from names; a key may be called `title`, though."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _without_titles(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _without_titles(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }
