"""Type of a value that JSON and YAML can hold."""

from __future__ import annotations

from typing import TypeAlias

JsonValue: TypeAlias = str | int | float | bool | list["JsonValue"] | dict[str, "JsonValue"] | None
"""Any JSON value: for settings of a recipe, whose types depend on the key."""
