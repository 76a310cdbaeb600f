"""Building blocks of a report section, independent of HTML and Markdown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlhfctl.report.numbers import MISSING, finite, interval, number, share, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rlhfctl.report.curves import Plot
    from rlhfctl.results.estimate import Estimate


@dataclass(frozen=True)
class Bar:
    """A drawn CI: its ends and its estimate, in percent of the scale."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class EstimateCell:
    """A metric with its interval in one cell, and optionally a bar of both."""

    value: str
    interval: str
    bar: Bar | None = None

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


Cell = str | Bar | EstimateCell | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: Heading.
        kind: `text`, `sentence`, `number`, `model` (text of a model, with line breaks), `scale`,
            whose cells are bars between 0 and 1, or `range`, whose bars have no scale of their own.
    """

    label: str
    kind: str = "text"


@dataclass(frozen=True)
class Group:
    """Rows under a common, optional heading across the table."""

    rows: tuple[tuple[Cell, ...], ...]
    heading: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of formatted cells, one per column; a row's first cell is its heading.

    It is collapsed under the label `folded` if that is set.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    folded: str = ""

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The rows of all groups."""
        return [row for group in self.groups for row in group.rows]

    @property
    def stacks(self) -> bool:
        """True if a narrow screen has to show a row's cells below one another."""
        return len(self.columns) > 5 or any(column.kind == "sentence" for column in self.columns)

    @property
    def has_model_text(self) -> bool:
        """True if a column holds text that a model wrote."""
        return any(column.kind == "model" for column in self.columns)


@dataclass(frozen=True)
class Plots:
    """Plots side by side under an optional heading, collapsed under the label `folded` if set."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]
    folded: str = ""
    large: bool = False
    heading: str = ""
    note: str = ""


@dataclass(frozen=True)
class FactGroup:
    """Names and values under a heading."""

    heading: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactGroups:
    """Groups of names and values, side by side."""

    kind: ClassVar[str] = "facts"
    groups: tuple[FactGroup, ...]


@dataclass(frozen=True)
class Note:
    """A sentence, optionally highlighted as a warning."""

    kind: ClassVar[str] = "note"
    text: str
    warning: bool = False


Block = Table | Plots | FactGroups | Note


@dataclass(frozen=True)
class Section:
    """A part of a report under a heading of its own."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """Target name of links to it."""
        return self.title.lower().replace(" ", "-")


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[tuple[Cell, ...]],
    folded: str = "",
) -> tuple[Block, ...]:
    """Return a table without the columns that are empty in every row; none without rows."""
    all_rows = tuple(rows)
    return grouped(caption, columns, [Group(all_rows)], folded) if all_rows else ()


def grouped(
    caption: str, columns: Sequence[Column], groups: Sequence[Group], folded: str = ""
) -> tuple[Block, ...]:
    """Return a table of groups, the columns that are empty or missing in every row left out."""
    rows = [row for group in groups for row in group.rows]
    used = [
        index
        for index in range(len(columns))
        if index == 0 or not all(_is_missing(row[index]) for row in rows)
    ]
    cut = tuple(
        replace(group, rows=tuple(tuple(row[index] for index in used) for row in group.rows))
        for group in groups
    )
    return (Table(caption, tuple(columns[index] for index in used), cut, folded),)


def _is_missing(cell: Cell) -> bool:
    value = cell.value if isinstance(cell, EstimateCell) else cell
    return not value or value == MISSING


def plots(
    candidates: Iterable[Plot | None], folded: str = "", *, large: bool = False
) -> tuple[Block, ...]:
    """Return the plots that have lines, side by side; nothing if none has."""
    drawable = tuple(plot for plot in candidates if plot is not None and plot.lines)
    if large:
        drawable = tuple(replace(plot, size="large") for plot in drawable)
    return (Plots(drawable, folded, large),) if drawable else ()


def notes(texts: Iterable[str]) -> tuple[Block, ...]:
    """Return notes as sentences."""
    return tuple(Note(f"{text[:1].upper()}{text[1:]}.") for text in texts)


def warnings(texts: Iterable[str]) -> tuple[Block, ...]:
    """Return warnings."""
    return tuple(Note(text, warning=True) for text in texts)


SHARE_COLUMNS = (Column("Share", "number"), Column("95 % CI", "number"), Column("", "scale"))


def share_cells(estimate: Estimate | None) -> tuple[Cell, Cell, Cell]:
    """Return a formatted share, its CI, and a bar of both."""
    return share(value_of(estimate)), interval(estimate, share), share_bar(estimate)


def share_bar(estimate: Estimate | None) -> Bar | None:
    """Return a share's bar on a scale from 0 to 1; None without an interval."""
    ends = finite_ends(estimate)
    if ends is None:
        return None
    low, value, high = (100 * min(max(end, 0.0), 1.0) for end in ends)
    return Bar(low, value, high)


def finite_ends(estimate: Estimate | None) -> tuple[float, float, float] | None:
    """Return low end, value and high end of an estimate; None unless all three are finite."""
    if estimate is None:
        return None
    low, value, high = map(finite, (estimate.low, estimate.value, estimate.high))
    return None if low is None or value is None or high is None else (low, value, high)


def estimate_cell(
    estimate: Estimate | None, write: Callable[[Any], str] = number
) -> EstimateCell | None:
    """Return a metric with its CI in one cell; None if it is missing."""
    if estimate is None or finite(estimate.value) is None:
        return None
    return EstimateCell(write(estimate.value), interval(estimate, write))


def estimate_cells(
    estimate: Estimate | None, write: Callable[[Any], str] = number
) -> tuple[str, str]:
    """Return a formatted metric and its CI."""
    return write(None if estimate is None else estimate.value), interval(estimate, write)
