"""Counts of the rows of a data set: read, usable, and dropped by cause."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhfctl.errors import DataError


@dataclass
class RowCounts:
    """Row counts, with the first location of each cause.

    Attributes:
        name: Data set name as given by the user.
        read: Rows read.
        usable: Usable rows.
        dropped: Cause -> number of rows.
        first: Cause -> location of its first row, such as ``pairs.jsonl:12``.
        duplicates: Repeated prompts omitted from a set of prompts; not counted as errors.
    """

    name: str
    read: int = 0
    usable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0

    def drop(self, cause: str, place: str = "") -> None:
        """Count one row as unusable."""
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if place:
            self.first.setdefault(cause, place)

    def summary(self) -> str:
        """Return one sentence with the number of unusable rows by cause."""
        if not self.dropped:
            return f"all {self.read:,} rows can be used"
        causes = sorted(self.dropped.items(), key=lambda item: -item[1])
        parts = (
            f"{count:,} {cause}" + (f" (first: {self.first[cause]})" if cause in self.first else "")
            for cause, count in causes
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
            raise DataError(f"no row is left; {self.summary()}", self.name, hint)
        if self.dropped and bad_rows == "refuse":
            advice = hint or "fix them, or set data.bad_rows: drop"
            raise DataError(self.summary(), self.name, advice)
