"""Counts of the rows of a data set: read, usable, and dropped by cause."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.recipe.data import DataSection

REPEATED = "repeated prompts"
"""Cause under which a set of prompts counts all but the first of equal prompts."""


@dataclass(frozen=True)
class SourceCounts:
    """Rows of one source of a mixture.

    Attributes:
        name: Its name.
        read: Rows read.
        usable: Usable rows.
        train: Training rows; with weights fewer than the usable ones, or repeated.
        held_out: Held-out rows.
    """

    name: str
    read: int
    usable: int
    train: int
    held_out: int


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
        limit: Largest share of unusable rows, as last checked.
        sources: Counts of each source of a mixture; empty for one source.
        notes: Sentences about how the source was read, and rows that people should read about.
    """

    name: str
    read: int = 0
    usable: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    limit: float = 1.0
    sources: tuple[SourceCounts, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> RowCounts:
        """Return counts of one source from what `dataclasses.asdict` made of them."""
        return cls(**{**record, "notes": tuple(record["notes"]), "sources": ()})

    @classmethod
    def total(cls, name: str, reports: Sequence[RowCounts]) -> RowCounts:
        """Return the sums of the counts of several sources."""
        total = cls(name)
        for report in reports:
            total.read += report.read
            total.usable += report.usable
            for counts, own in (
                (total.dropped, report.dropped),
                (total.left_out, report.left_out),
            ):
                for cause, count in own.items():
                    counts[cause] = counts.get(cause, 0) + count
            total.first = report.first | total.first
            total.notes += tuple(f"{report.name}: {note}" for note in report.notes)
        return total

    @property
    def duplicates(self) -> int:
        """Repeated prompts that were left out of a set of prompts."""
        return self.left_out.get(REPEATED, 0)

    @property
    def repeats(self) -> int:
        """Rows that a mixture trains on again in the same epoch."""
        return sum(max(0, one.train + one.held_out - one.usable) for one in self.sources)

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

    def source_lines(self) -> list[str]:
        """Return one sentence per source of a mixture, with its share of the training rows."""
        total = max(1, sum(source.train for source in self.sources))
        return [
            f"{source.name}: {source.train:,} training rows "
            f"({100 * source.train / total:.1f} %) of {source.usable - source.held_out:,}, "
            f"{source.held_out:,} held out"
            for source in self.sources
        ]

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
            **({"sources": [asdict(source) for source in self.sources]} if self.sources else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
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
        allowed = f" (allowed: {100 * self.limit:.3g} %)" if 0.0 < self.limit < 1.0 else ""
        return f"{total:,} of {self.read:,} rows cannot be used{allowed}: {', '.join(parts)}"

    def _advice(self) -> str:
        """Return advice on a file whose only row cannot be used."""
        if self.read > 1 or not self.name.lower().endswith(".json"):
            return ""
        return (
            "the file is one JSON object, hence one row; save its rows as an array ([{...}, ...]) or "
            "as JSON Lines, one object per line"
        )

    def exceeds(self, limit: float) -> bool:
        """Return whether more than a share of the rows cannot be used."""
        return sum(self.dropped.values()) > limit * self.read

    def check(self, limit: float, hint: str = "") -> None:
        """Raise if too many rows cannot be used, or if no row is left.

        Args:
            limit: Largest share of unusable rows.
            hint: Advice for the user; empty uses a general one.

        Raises:
            DataError: There are more, or no row is left.
        """
        self.limit = limit
        if not self.read:
            raise DataError("the data set is empty", self.name)
        if not self.usable:
            raise DataError(f"no row is left; {self.reasons()}", self.name, hint or self._advice())
        if self.exceeds(limit):
            advice = "fix them, or raise data.max_bad_fraction"
            if limit == 0.0:
                advice = "fix them, or set data.bad_rows: drop with a data.max_bad_fraction above 0"
            raise DataError(self.summary(), self.name, "; ".join(filter(None, (hint, advice))))


def bad_limit(section: DataSection) -> float:
    """Return the largest share of unusable rows that a recipe allows."""
    return 0.0 if section.bad_rows == "refuse" else section.max_bad_fraction


def _by_count(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
