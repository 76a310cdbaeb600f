"""Normalisation of the rows of one kind of data: all in one format, repeated prompts once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlhfctl.data.forms import SYSTEM, TOOLS
from rlhfctl.data.row_counts import REPEATED
from rlhfctl.data.rows import (
    NORMALISERS,
    BadRowError,
    LeftOutError,
    Row,
    as_chat,
    is_conversation,
    text_of,
)
from rlhfctl.data.split import same_prompt_key
from rlhfctl.data.tools import has_tools, with_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rlhfctl.data.forms import Item, Kind
    from rlhfctl.data.raw import RawRows
    from rlhfctl.data.row_counts import RowCounts

SOURCE_ROW = "source_row"
"""Column of prompts: index of the row in `raw_prompts`, where its further columns are."""
MESSAGES_BESIDE_TEXT = "messages beside text"
TEXT_BESIDE_MESSAGES = "text beside messages"
_TOOLS_BESIDE_TEXT = "{:,} rows have tools, which plain text leaves out; as_chat: true gives them to the chat template"
_SYSTEM_TAKEN = "{:,} rows have a system text, which is the system message of their conversation"
_SYSTEM_BESIDE_TEXT = "{:,} rows have a system text, which plain text leaves out; as_chat: true makes it the system message"


class RowCheck:
    """Check of the rows of one or several sources, the first of which decides the format.

    Args:
        kind: Kind of data.
        margins: Rows without a margin cannot be used.
    """

    def __init__(self, kind: Kind, *, margins: bool = False) -> None:
        self._kind = kind
        self._margins = margins
        self._conversational: bool | None = None
        self._seen: set[bytes] = set()

    def usable(
        self,
        items: Iterable[tuple[int, Item]],
        raw: RawRows,
        report: RowCounts,
        *,
        chat: bool,
        start: Callable[[], int] = int,
    ) -> Iterator[Row]:
        """Yield the usable rows of a source, and count the others.

        Args:
            items: Rows in TRL's formats, or why there is none, with the number of the source's row.
            raw: The source's rows.
            report: Receives the counts.
            chat: Text becomes messages.
            start: Returns the number of raw rows in the sources before.
        """
        first: int | None = None
        toolless = systemless = systems = 0
        for number, item in items:
            first = start() if first is None else first
            report.read += 1
            try:
                row = self._row(item, chat=chat)
                self._check_format(row)
                if self._kind == "prompts":
                    self._refuse_repeated(row)
            except BadRowError as error:
                report.drop(str(error), raw.place(number))
            except LeftOutError as error:
                report.leave_out(str(error))
            else:
                report.usable += 1
                toolless += _leaves_out_tools(item, row)
                systemless += _leaves_out_system(item, row)
                systems += _takes_system(item, row)
                yield row | {SOURCE_ROW: first + number} if self._kind == "prompts" else row
        if toolless:
            report.notes += (_TOOLS_BESIDE_TEXT.format(toolless),)
        if systemless:
            report.notes += (_SYSTEM_BESIDE_TEXT.format(systemless),)
        if systems:
            report.notes += (_SYSTEM_TAKEN.format(systems),)

    def _row(self, item: Item, *, chat: bool) -> Row:
        if isinstance(item, (BadRowError, LeftOutError)):
            raise item
        row = NORMALISERS[self._kind](item)
        if self._margins and row.get("margin") is None:
            raise BadRowError("margin is missing or not a number")
        row = as_chat(row) if chat else row
        return with_tools(_with_system(row, item), item.get(TOOLS))

    def _refuse_repeated(self, row: Row) -> None:
        # Digests: the texts of millions of prompts would fill the memory.
        key = hashlib.sha256(same_prompt_key(row["prompt"]).encode()).digest()
        if key in self._seen:
            raise LeftOutError(REPEATED)
        self._seen.add(key)

    def _check_format(self, row: Row) -> None:
        """Remember the first row's format; refuse rows of another one."""
        messages = is_conversation(row["prompt"])
        if self._conversational is None:
            self._conversational = messages
        elif messages != self._conversational:
            raise BadRowError(MESSAGES_BESIDE_TEXT if messages else TEXT_BESIDE_MESSAGES)


def _system_of(item: Item) -> str:
    """Return the system text of a row's own column; empty if there is none.

    Numbers in such a column, say of the system that wrote the row, are none.
    """
    if not isinstance(item, Mapping):
        return ""
    cells = (item.get(name) for name in SYSTEM)
    return next((text_of(cell, "system") for cell in cells if cell and isinstance(cell, str)), "")


def _with_system(row: Row, item: Item) -> Row:
    """Return a conversation with its system text as first message, unless it has one."""
    prompt, text = row["prompt"], _system_of(item)
    if not text or not is_conversation(prompt) or prompt[0]["role"] in ("system", "developer"):
        return row
    return row | {"prompt": [{"role": "system", "content": text}, *prompt]}


def _takes_system(item: Item, row: Row) -> bool:
    """Return whether a conversation begins with the text of its row's own column."""
    prompt, text = row["prompt"], _system_of(item)
    return bool(text) and is_conversation(prompt) and prompt[0]["content"] == text


def _leaves_out_system(item: Item, row: Row) -> bool:
    return bool(_system_of(item)) and not is_conversation(row["prompt"])


def _leaves_out_tools(item: Item, row: Row) -> bool:
    text = not is_conversation(row["prompt"])
    return text and isinstance(item, Mapping) and has_tools(item.get(TOOLS))
