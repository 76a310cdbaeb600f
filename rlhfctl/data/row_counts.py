"""Counts of the rows of a data set: read, usable, and dropped by cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlhfctl.errors import DataError

REPEATED = "repeated prompts"
"""Cause under which a set of prompts counts all but the first of equal prompts."""


@dataclass
class RowCounts:
    """Row counts, with the first location of each cause.

    Attributes:
        name: Data set name as given by the user.
        read: Rows read.
        usable: Usable rows.
        dropped: Cause -> number of rows.
        first: Cause -> location of its first row, such as ``pairs.jsonl:12``.
        left_out: Cause -> number of rows that are not needed, such as repeated prompts and tied
            votes; they are not counted as errors.
        notes: Sentences about how the source was read, and rows that people should read about.
    """

    name: str
    read: int = 0
    usable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def duplicates(self) -> int:
        """Repeated prompts that were left out of a set of prompts."""
        return self.left_out.get(REPEATED, 0)

    def drop(self, cause: str, place: str = "") -> None:
        """Count one row as unusable."""
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if place:
            self.first.setdefault(cause, place)

    def leave_out(self, cause: str) -> None:
        """Count one row that is not needed."""
        self.left_out[cause] = self.left_out.get(cause, 0) + 1

    def add_encoding(self, encoding: RowCounts) -> None:
        """Count the rows that encoding dropped as no longer usable."""
        self.usable -= sum(encoding.dropped.values())
        for cause, count in encoding.dropped.items():
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def remarks(self) -> list[str]:
        """Return the notes, and a sentence on the rows that are not needed if there are any."""
        return [*self.notes, *([self.left_out_summary()] if self.left_out else [])]

    def left_out_summary(self) -> str:
        """Return one sentence with the number of rows that are not needed by cause."""
        parts = (f"{count:,} {cause}" for cause, count in _by_count(self.left_out))
        total = sum(self.left_out.values())
        return f"{total:,} of {self.read:,} rows left out: {', '.join(parts)}"

    def reasons(self) -> str:
        """Return why rows are missing: the bad ones, those not needed, and the notes."""
        return "; ".join([*([self.summary()] if self.dropped else []), *self.remarks()])

    def record(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "name": self.name,
            "read": self.read,
            "usable": self.usable,
            "dropped": dict(self.dropped),
            "left_out": dict(self.left_out),
        }

    def summary(self) -> str:
        """Return one sentence with the number of unusable rows by cause."""
        if not self.dropped:
            return f"all {self.read:,} rows can be used"
        parts = (
            f"{count:,} {cause}" + (f" (first: {self.first[cause]})" if cause in self.first else "")
            for cause, count in _by_count(self.dropped)
        )
        total = sum(self.dropped.values())
        return f"{total:,} of {self.read:,} rows cannot be used: {', '.join(parts)}"

    def check(self, bad_rows: str, hint: str = "") -> None:
        """Raise if bad rows are refused, or if no row is left.

        Args:
            bad_rows: ``drop`` or ``refuse``, the recipe's ``data.bad_rows``.
            hint: Advice for the user; empty uses a general one.

        Raises:
            DataError: Bad rows are refused, or no row is left.
        """
        if not self.read:
            raise DataError("the data set is empty", self.name)
        if not self.usable:
            raise DataError(f"no row is left; {self.reasons()}", self.name, hint)
        if self.dropped and bad_rows == "refuse":
            advice = hint or "fix them, or set data.bad_rows: drop"
            raise DataError(self.summary(), self.name, advice)


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
