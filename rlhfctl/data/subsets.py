"""Comparisons in named subsets, in the formats of RewardBench and RewardBench 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.data.best_of_rows import BestOfRow, best_of_row
from rlhfctl.data.files import read_local
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import BadRowError, comparison, is_conversation
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.data.rows import Row

_COLUMNS = ("subset", "prompt", "chosen", "rejected")
_ID = "id"
"""Column that RewardBench 2's subset Ties needs."""


@dataclass(frozen=True)
class Subsets:
    """Rows of a file of subsets.

    Attributes:
        rows: Rows with `subset`, `prompt`, `chosen`, `rejected`.
        report: Row counts of the file.
        best_of: Rows with lists of responses, in RewardBench 2's format; `rows` is then empty.
    """

    rows: list[Row]
    report: RowCounts
    best_of: list[BestOfRow] = field(default_factory=list)


def read_subsets(source: str, *, messages: bool, limit: int | None = None) -> Subsets:
    """Read a file of comparisons with a `subset` column.

    Args:
        source: A json, jsonl, csv or parquet file, a pattern, or a saved data set.
        messages: True if the reward model reads conversations: text is converted to a user message
            and an assistant message.
        limit: Maximum number of rows read; None reads all.

    Raises:
        DataError: The file is missing, damaged, lacks a column, or has no usable row.
        UnsafeError: The source is a script.
    """
    raw = read_local(source, "train", limit)
    absent = [name for name in _COLUMNS if name not in raw.columns]
    if absent:
        raise DataError(
            f"{_named(absent)} missing; found: {', '.join(raw.columns[:20]) or 'none'}",
            source,
            f"each row needs {', '.join(_COLUMNS)}",
        )
    raw = raw.only((*_COLUMNS, _ID) if _ID in raw.columns else _COLUMNS)
    report = RowCounts(source, notes=raw.notes)
    rows: list[Row] = []
    best_of: list[BestOfRow] = []
    for number, row in enumerate(raw.rows):
        if limit is not None and number >= limit:
            break
        report.read += 1
        try:
            if _has_lists(row):
                best_of.append(best_of_row(row, messages=messages))
            else:
                rows.append(_row(row, messages=messages))
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
        else:
            report.usable += 1
    report.check(1.0)
    if rows and best_of:
        raise DataError(
            f"{len(best_of)} rows have lists of responses and {len(rows)} have one each",
            source,
            "split the file, into RewardBench's form and RewardBench 2's",
        )
    return Subsets(rows, report, best_of)


def _has_lists(row: Mapping[str, Any]) -> bool:
    """Return whether a row's responses are lists of texts, not texts or messages."""
    return any(
        isinstance(row.get(name), list | tuple) and any(isinstance(text, str) for text in row[name])
        for name in ("chosen", "rejected")
    )


def _row(row: Mapping[str, Any], *, messages: bool) -> Row:
    subset = row.get("subset")
    if not isinstance(subset, str) or not subset.strip():
        raise BadRowError("subset is missing")
    pair = comparison({name: row.get(name) for name in _COLUMNS[1:]})
    if is_conversation(pair["prompt"]) and not messages:
        raise BadRowError("messages, where the reward model reads text")
    if messages and not is_conversation(pair["prompt"]):
        pair = {
            "prompt": [{"role": "user", "content": pair["prompt"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
    return {"subset": subset.strip()} | pair


def _named(columns: list[str]) -> str:
    listed = ", ".join(columns)
    return f"the column {listed} is" if len(columns) == 1 else f"the columns {listed} are"
