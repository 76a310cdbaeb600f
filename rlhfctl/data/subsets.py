"""Comparisons in named subsets, in RewardBench's format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.data.files import read_local
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import BadRowError, comparison, is_conversation
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.data.rows import Row

_COLUMNS = ("subset", "prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Subsets:
    """Rows of a file of subsets.

    Attributes:
        rows: Rows with `subset`, `prompt`, `chosen`, `rejected`.
        report: Row counts of the file.
    """

    rows: list[Row]
    report: RowCounts


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
    raw = raw.only(_COLUMNS)
    report = RowCounts(source, notes=raw.notes)
    rows: list[Row] = []
    for number, row in enumerate(raw.rows):
        if limit is not None and number >= limit:
            break
        report.read += 1
        try:
            rows.append(_row(row, messages=messages))
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
        else:
            report.usable += 1
    report.check(1.0)
    return Subsets(rows, report)


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
