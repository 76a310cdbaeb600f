"""What became of a data set's rows: how many were read, kept, and dropped by which cause."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhfctl.errors import DataError


@dataclass
class RowCounts:
    """Counts of rows; a cause also knows where it was met first.

    Attributes:
        name: The data set, as the user named it.
        read: Rows looked at.
        kept: Rows that can be used.
        dropped: Cause -> rows.
        first: Cause -> place of its first row, such as ``pairs.jsonl:12``.
        duplicates: Repeated prompts left out of a set of prompts; no fault.
    """

    name: str
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0

    def drop(self, cause: str, place: str = "") -> None:
        """Count one row as unusable."""
        self.dropped[cause] = self.dropped.get(cause, 0) + 1
        if place:
            self.first.setdefault(cause, place)

    def summary(self) -> str:
        """Return one sentence: how many of how many rows cannot be used, by cause."""
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
        """End when bad rows are refused, or when none is left.

        Args:
            bad_rows: ``drop`` or ``refuse``, as the recipe's ``data.bad_rows``.
            hint: What to do about it, where there is more to say than the causes do.

        Raises:
            DataError: There are bad rows and they are refused, or no row is left.
        """
        if not self.read:
            raise DataError("the data set is empty", self.name)
        if not self.kept:
            raise DataError(f"no row is left; {self.summary()}", self.name, hint)
        if self.dropped and bad_rows == "refuse":
            advice = hint or "mend them, or set data.bad_rows: drop"
            raise DataError(self.summary(), self.name, advice)
