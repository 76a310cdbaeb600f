"""Building blocks of a report section, independent of HTML and Markdown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rlhfctl.report.numbers import finite, interval, number, share

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rlhfctl.report.curves import Plot


@dataclass(frozen=True)
class Bar:
    """A drawn CI: its ends and its estimate, in percent of the scale."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval in one cell."""

    value: str
    interval: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.value} ({self.interval})" if self.interval else self.value


Cell = str | Bar | Estimate | None


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
    """Rows of formatted cells, one per column; a row's first cell is its heading."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]

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
    """Plots side by side, collapsed under the label `folded` if it is set."""

    kind: ClassVar[str] = "plots"
    plots: tuple[Plot, ...]
    folded: str = ""
    large: bool = False


@dataclass(frozen=True)
class Note:
    """A sentence, optionally highlighted as a warning."""

    kind: ClassVar[str] = "note"
    text: str
    warning: bool = False


Block = Table | Plots | Note


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
    caption: str, columns: Sequence[Column], rows: Iterable[tuple[Cell, ...]]
) -> tuple[Block, ...]:
    """Return a table without the columns that are empty in every row; none without rows."""
    all_rows = tuple(rows)
    return grouped(caption, columns, [Group(all_rows)]) if all_rows else ()


def grouped(caption: str, columns: Sequence[Column], groups: Sequence[Group]) -> tuple[Block, ...]:
    """Return a table of groups, the columns that are empty in every row left out."""
    rows = [row for group in groups for row in group.rows]
    used = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in rows)]
    cut = tuple(
        replace(group, rows=tuple(tuple(row[index] for index in used) for row in group.rows))
        for group in groups
    )
    return (Table(caption, tuple(columns[index] for index in used), cut),)


def plots(
    candidates: Iterable[Plot | None], folded: str = "", *, large: bool = False
) -> tuple[Block, ...]:
    """Return the plots that have lines, side by side; nothing if none has."""
    drawable = tuple(plot for plot in candidates if plot is not None and plot.lines)
    return (Plots(drawable, folded, large),) if drawable else ()


def notes(value: Any) -> tuple[Block, ...]:
    """Return a list of notes as sentences; nothing for other values."""
    texts = value if isinstance(value, list) else []
    return tuple(Note(f"{text[:1].upper()}{text[1:]}.") for text in texts if isinstance(text, str))


def warnings(value: Any) -> tuple[Block, ...]:
    """Return a list of warnings; nothing for other values."""
    texts = value if isinstance(value, list) else []
    return tuple(Note(text, warning=True) for text in texts if isinstance(text, str))


SHARE_COLUMNS = (Column("Share", "number"), Column("95 % CI", "number"), Column("", "scale"))


def share_cells(metrics: Mapping[str, Any], name: str) -> tuple[Cell, Cell, Cell]:
    """Return a formatted share, its CI, and a bar of both."""
    return share(metrics.get(name)), interval(metrics, name, share), share_bar(metrics, name)


def share_bar(metrics: Mapping[str, Any], name: str) -> Bar | None:
    """Return a share's bar on a scale from 0 to 1; None without an interval."""
    ends = [finite(metrics.get(name + end)) for end in ("_low", "", "_high")]
    if None in ends:
        return None
    low, estimate, high = (100 * min(max(end or 0.0, 0.0), 1.0) for end in ends)
    return Bar(low, estimate, high)


def estimate(
    metrics: Mapping[str, Any], name: str, write: Callable[[Any], str] = number
) -> Estimate | None:
    """Return a metric with its CI in one cell; None if it is missing."""
    if finite(metrics.get(name)) is None:
        return None
    return Estimate(write(metrics[name]), interval(metrics, name, write))


def estimate_cells(
    metrics: Mapping[str, Any], name: str, write: Callable[[Any], str] = number
) -> tuple[str, str]:
    """Return a formatted metric and its CI."""
    return write(metrics.get(name)), interval(metrics, name, write)


def objects(value: Any) -> dict[str, dict[str, Any]]:
    """Return the entries of an object that are objects themselves; empty for other values."""
    entries = value.items() if isinstance(value, dict) else ()
    return {str(name): entry for name, entry in entries if isinstance(entry, dict)}


def group(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's accuracy with its CI ends named as in other metrics."""
    ends = {f"accuracy_{end}": metrics.get(end) for end in ("low", "high") if end in metrics}
    return {**ends, **metrics}
