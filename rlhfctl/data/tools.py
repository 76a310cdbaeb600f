"""The `tools` column: the functions that a conversation may call, which chat templates write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlhfctl.data.forms import TOOLS
from rlhfctl.data.message_fields import FIELDS, fields_of
from rlhfctl.data.messages import list_in
from rlhfctl.data.rows import BadRowError, is_conversation

if TYPE_CHECKING:
    from rlhfctl.data.rows import Row


def with_tools(row: Row, cell: Any) -> Row:
    """Return a normalised row whose conversation has the tools of its source row.

    The first message holds them, unless it has tools of its own. A plain text is unchanged.

    Args:
        row: The row.
        cell: List of tools, or its JSON; None or an empty one: no tools.

    Raises:
        BadRowError: The cell is no list of JSON objects.
    """
    prompt = row["prompt"]
    if not is_conversation(prompt) or not has_tools(cell):
        return row
    tools = list_in(cell)
    if tools is None or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadRowError("tools is not a list of JSON objects")
    fields = fields_of(prompt[0])
    if TOOLS in fields:
        return row
    try:
        text = json.dumps(
            fields | {TOOLS: _without_none(tools)}, ensure_ascii=False, allow_nan=False
        )
        text.encode()
    except (TypeError, ValueError) as error:
        raise BadRowError("tools is not a list of JSON objects") from error
    return row | {"prompt": [prompt[0] | {FIELDS: text}, *prompt[1:]]}


def has_tools(cell: Any) -> bool:
    """Return whether a cell of the column names any tools."""
    return bool(cell) and not (isinstance(cell, str) and cell.strip() in ("", "[]", "null"))


def _without_none(value: Any) -> Any:
    """Return a value without keys of None: a table gives each schema the keys of all others."""
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value
