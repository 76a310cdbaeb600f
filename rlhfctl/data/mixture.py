"""Mixtures of several sources: which training rows each contributes, by its weight."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from rlhfctl.data.row_counts import SourceCounts
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rlhfctl.data.forms import Kind
    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.data.rows import Row
    from rlhfctl.recipe.data import DatasetSection

PART = "mixture_part"
"""Column of the rows of a mixture: number of the source."""


@dataclass(frozen=True)
class Shares:
    """Weights of the sources of a mixture.

    Attributes:
        names: Names of the sources.
        weights: Weight of each; None uses every row once.
        oversample: Repeat rows until every row is used, instead of leaving rows out.
        seed: Draws the rows.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] | None
    oversample: bool
    seed: int

    @classmethod
    def of(cls, section: DatasetSection, seed: int) -> Shares:
        """Return the weights of a section with sources."""
        weights = tuple(one.weight for one in section.sources if one.weight is not None)
        names = tuple(one.source for one in section.sources)
        return cls(names, weights or None, section.oversample, seed)

    def counts(self, available: Sequence[int]) -> list[int]:
        """Return the number of training rows per source.

        Shares are exact but for rounding to whole rows.

        Args:
            available: [sources] training rows of each, at least 1.
        """
        if self.weights is None:
            return list(available)
        whole = sum(self.weights)
        totals = [
            count * whole / weight for count, weight in zip(available, self.weights, strict=True)
        ]
        total = max(totals) if self.oversample else min(totals)
        rows = [max(1, round(total * weight / whole)) for weight in self.weights]
        if self.oversample:
            return [max(n, count) for n, count in zip(rows, available, strict=True)]
        return [min(n, count) for n, count in zip(rows, available, strict=True)]


def mixed(
    parts: Sequence[int], outside: Sequence[bool], shares: Shares, reports: Sequence[RowCounts]
) -> tuple[list[int], list[int], tuple[SourceCounts, ...]]:
    """Return the training rows, the held-out rows, and the counts of each source.

    Every held-out row is used once, whatever the weights.

    Args:
        parts: [rows] number of the row's source.
        outside: [rows] whether the row's prompt is held out.
        shares: The weights.
        reports: [sources] counts of the rows read.

    Returns:
        Row numbers of both, source by source; a row that is repeated has its number several times.

    Raises:
        DataError: A source has a weight and no training row.
    """
    inside: list[list[int]] = [[] for _ in shares.names]
    held_out = []
    held_out_counts = [0] * len(shares.names)
    for row, (part, out) in enumerate(zip(parts, outside, strict=True)):
        if out:
            held_out.append(row)
            held_out_counts[part] += 1
        else:
            inside[part].append(row)
    if shares.weights is not None and not all(inside):
        name = shares.names[[bool(rows) for rows in inside].index(False)]
        raise DataError(
            "every row is held out, so that no training row is left to weigh",
            name,
            "give it more prompts, or leave its weight or the source out",
        )
    counts = shares.counts([len(rows) for rows in inside])
    train: list[int] = []
    for number, (rows, count) in enumerate(zip(inside, counts, strict=True)):
        rng = random.Random(f"mixture {shares.seed} {number}")  # noqa: S311
        repeats, rest = divmod(count, len(rows)) if rows else (0, 0)
        train += sorted(rows * repeats + rng.sample(rows, rest))
    sources = tuple(
        SourceCounts(name, report.read, report.usable, count, out)
        for name, report, count, out in zip(
            shares.names, reports, counts, held_out_counts, strict=True
        )
    )
    return train, held_out, sources


def with_columns(
    streams: Sequence[Iterator[Row]], kind: Kind, names: Sequence[str]
) -> Iterator[Row]:
    """Yield the rows of all sources with the same columns, and `PART`.

    Comparisons have the name of their source as ``source``, unless the row has another, and no
    annotator, no margin or the weight 1 where only other sources have any.
    """
    if kind != "comparisons":
        yield from _numbered(streams)
        return
    heads = [list(_first(stream)) for stream in streams]
    columns = dict.fromkeys(name for head in heads for row in head for name in row)
    absent: dict[str, Any] = {"annotator": "", "weight": 1.0}
    for row in _numbered([chain(*both) for both in zip(heads, streams, strict=True)]):
        source = row.get("source") or names[row[PART]]
        yield {name: row.get(name, absent.get(name)) for name in columns} | {
            "source": source,
            PART: row[PART],
        }


def _first(stream: Iterator[Row]) -> Iterator[Row]:
    for row in stream:
        yield row
        return


def _numbered(streams: Iterable[Iterable[Row]]) -> Iterator[Row]:
    for number, stream in enumerate(streams):
        for row in stream:
            yield row | {PART: number}
