"""Unchecked rows of one source of a recipe, with their form."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.form_table import ChosenForm, choose_form
from rlhfctl.data.hub import read_hub
from rlhfctl.data.hub_rows import HubSplit, stream_hub
from rlhfctl.data.raw import RawRows
from rlhfctl.data.streamed_rows import FirstRows
from rlhfctl.errors import DataError
from rlhfctl.recipe.data import EMBEDDED, EMBEDDED_STEPS, ComparisonsSection
from rlhfctl.world import corpora
from rlhfctl.world.tasks import EVERYDAY, STEPS

if TYPE_CHECKING:
    from rlhfctl.data.forms import Form, Kind
    from rlhfctl.recipe.data import SourceSection

TASKS = {EMBEDDED: EVERYDAY, EMBEDDED_STEPS: STEPS}
"""Tasks of the embedded world by the source that names them."""
_EMBEDDED_ROWS: dict[str, int] = {"demonstrations": 2000, "comparisons": 4000, "prompts": 4000}
_EMBEDDED_COLUMNS: dict[str, dict[str, str]] = {"comparisons": {"source": "kind"}}


def source_rows(section: SourceSection, kind: Kind, seed: int) -> tuple[RawRows, ChosenForm]:
    """Return the rows to convert, with all of their columns, and their form.

    Args:
        section: The source.
        kind: Kind of data.
        seed: Draws `max_rows` of the rows.

    Raises:
        DataError: The source is missing, damaged, in another format, or cannot be streamed.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    raw = _read(section, kind, seed)
    mapping = section.columns
    if section.is_generated:
        mapping = _EMBEDDED_COLUMNS.get(kind, {}) | mapping
    chosen = choose_form(kind, raw, mapping, section.preset)
    if section.streaming:
        refuse_whole(section, chosen.form)
        return first_rows(raw, section.max_rows), chosen
    # A form of several rows is drawn from after its conversion.
    return (raw if chosen.form.whole else _limited(raw, section.max_rows, seed)), chosen


def refuse_whole(section: SourceSection, *forms: Form) -> None:
    """Refuse to stream forms whose rows depend on each other.

    Raises:
        DataError: The section is streamed, and each of the forms needs all rows at once.
    """
    if section.streaming and all(form.whole for form in forms):
        raise DataError(
            f"cannot be streamed: rows of form {forms[0].name} depend on each other, so that all of "
            "them are read at once",
            section.source,
            "set streaming: false",
        )


def first_rows(raw: RawRows, max_rows: int | None) -> RawRows:
    """Return the first rows of a source: a random draw would need the number of all."""
    if max_rows is None:
        return raw
    note = f"streaming: the first {max_rows:,} rows, none drawn at random"
    return replace(raw, rows=FirstRows(raw.rows, max_rows), notes=(*raw.notes, note))


def _read(section: SourceSection, kind: Kind, seed: int) -> RawRows:
    if section.is_generated:
        return _embedded(section, kind, seed)
    if is_local(section.source):
        return read_local(section.source, section.split, streaming=section.streaming)
    if section.streaming:
        return stream_hub(hub_split(section))
    return read_hub(section.source, section.config, section.split, section.revision)


def hub_split(section: SourceSection) -> HubSplit:
    """Return the split of a Hub data set that a section names."""
    return HubSplit(section.source, section.config, section.split, section.revision)


def _embedded(section: SourceSection, kind: Kind, seed: int) -> RawRows:
    row_count = section.max_rows or _EMBEDDED_ROWS[kind]
    name, task = section.source, TASKS[section.source]
    if kind == "comparisons":
        labels = section.labels_per_pair if isinstance(section, ComparisonsSection) else 1
        rows = corpora.comparisons(max(1, row_count // labels), seed, labels, task)
    else:
        make = corpora.demonstrations if kind == "demonstrations" else corpora.prompts
        rows = make(row_count, seed, task)
    return RawRows(name, tuple(rows[0]), rows, lambda row: f"{name} row {row + 1}")


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
