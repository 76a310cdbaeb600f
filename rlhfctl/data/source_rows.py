"""Unchecked rows of one source of a recipe, with their form."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.form_table import ChosenForm, choose_form
from rlhfctl.data.hub import read_hub
from rlhfctl.data.raw import RawRows
from rlhfctl.recipe.data import EMBEDDED, ComparisonsSection
from rlhfctl.world import corpora

if TYPE_CHECKING:
    from rlhfctl.data.forms import Kind
    from rlhfctl.recipe.data import SourceSection

_EMBEDDED_ROWS: dict[str, int] = {"demonstrations": 2000, "comparisons": 4000, "prompts": 4000}
_EMBEDDED_COLUMNS: dict[str, dict[str, str]] = {"comparisons": {"source": "kind"}}


def source_rows(section: SourceSection, kind: Kind, seed: int) -> tuple[RawRows, ChosenForm]:
    """Return the rows to convert, with all of their columns, and their form.

    Args:
        section: The source.
        kind: Kind of data.
        seed: Draws `max_rows` of the rows.

    Raises:
        DataError: The source is missing, damaged or in another format.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    raw = _read(section, kind, seed)
    mapping = section.columns
    if section.source == EMBEDDED:
        mapping = _EMBEDDED_COLUMNS.get(kind, {}) | mapping
    chosen = choose_form(kind, raw, mapping, section.preset)
    # A form of several rows is drawn from after its conversion.
    return (raw if chosen.form.whole else _limited(raw, section.max_rows, seed)), chosen


def _read(section: SourceSection, kind: Kind, seed: int) -> RawRows:
    if section.source == EMBEDDED:
        labels = section.labels_per_pair if isinstance(section, ComparisonsSection) else 1
        return _embedded(kind, section.max_rows, seed, labels)
    if is_local(section.source):
        return read_local(section.source, section.split)
    return read_hub(section.source, section.config, section.split, section.revision)


def _embedded(kind: Kind, max_rows: int | None, seed: int, labels_per_pair: int) -> RawRows:
    row_count = max_rows or _EMBEDDED_ROWS[kind]
    if kind == "comparisons":
        pairs = max(1, row_count // labels_per_pair)
        rows = corpora.comparisons(pairs, seed, labels_per_pair)
    else:
        make = corpora.demonstrations if kind == "demonstrations" else corpora.prompts
        rows = make(row_count, seed)
    return RawRows(EMBEDDED, tuple(rows[0]), rows, lambda row: f"{EMBEDDED} row {row + 1}")


def _limited(raw: RawRows, max_rows: int | None, seed: int) -> RawRows:
    """Return `max_rows` of a source's rows, sampled with the seed."""
    if max_rows is None or max_rows >= len(raw.rows):
        return raw
    drawn = drawn_rows(len(raw.rows), max_rows, seed)
    place = raw.place
    rows: Any = raw.rows
    taken = rows.select(drawn) if hasattr(rows, "select") else [rows[row] for row in drawn]
    return replace(raw, rows=taken, place=lambda row: place(drawn[row]))


def drawn_rows(count: int, max_rows: int, seed: int) -> list[int]:
    """Return the indices of a sample, or all in order if there are no more."""
    if max_rows >= count:
        return list(range(count))
    return random.Random(f"max_rows {seed}").sample(range(count), max_rows)  # noqa: S311
