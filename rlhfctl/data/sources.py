"""Data sets of a recipe, as checked rows split into training and held-out parts."""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.data import cache
from rlhfctl.data.digests import STORED, digest_of
from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.form_table import ChosenForm, check_section, choose_form, renamed
from rlhfctl.data.hub import read_hub
from rlhfctl.data.progress import NO_PROGRESS
from rlhfctl.data.raw import RawRows
from rlhfctl.data.row_counts import REPEATED, RowCounts, bad_limit
from rlhfctl.data.rows import (
    NORMALISERS,
    BadRowError,
    LeftOutError,
    Row,
    as_chat,
    content,
    is_conversation,
)
from rlhfctl.data.split import held_out_positions, position, prompt_key, same_prompt_key
from rlhfctl.data.stored_rows import POSITION, followed, rows_key, write_rows
from rlhfctl.errors import DataError
from rlhfctl.recipe.schema import ComparisonsSection
from rlhfctl.world import corpora

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from datasets import Dataset

    from rlhfctl.data.arrow_parts import PartWriter
    from rlhfctl.data.forms import Item, Kind
    from rlhfctl.data.progress import Progress
    from rlhfctl.data.rows import Value
    from rlhfctl.recipe.schema import DatasetSection, Recipe

EMBEDDED = "embedded"
_EMBEDDED_ROWS: dict[str, int] = {"demonstrations": 2000, "comparisons": 4000, "prompts": 4000}
_EMBEDDED_COLUMNS: dict[str, dict[str, str]] = {"comparisons": {"source": "kind"}}
_BATCH = 1000

SOURCE_ROW = "source_row"
"""Column of prompts: index of the row in `raw_prompts`, where its further columns are."""


@dataclass(frozen=True)
class Split:
    """Training and held-out rows of a data set, which share no prompt.

    Attributes:
        train: Training rows.
        held_out: Held-out rows.
        report: Row counts of the source.
    """

    train: Dataset
    held_out: Dataset
    report: RowCounts


def load_demonstrations(recipe: Recipe, progress: Progress = NO_PROGRESS) -> Split:
    """Return the rows of ``data.demonstrations``: ``prompt``, ``completion``.

    All rows have text, or all rows have lists of messages. Plain text has the prompt "".

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "demonstrations", progress)


def load_comparisons(
    recipe: Recipe, progress: Progress = NO_PROGRESS, *, margins: bool = False
) -> Split:
    """Return the rows of ``data.comparisons``: ``prompt``, ``chosen``, ``rejected``.

    ``annotator`` and ``source`` (text) and ``margin`` (a number, or None) are present if the source
    has them, ``weight`` if the pairs are made from rankings. In the embedded world, ``source`` is
    the kind of question.

    Args:
        recipe: The recipe.
        progress: Receives the progress of a large source.
        margins: Rows without a margin cannot be used.

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "comparisons", progress, margins=margins)


def load_prompts(recipe: Recipe, progress: Progress = NO_PROGRESS) -> Split:
    """Return the rows of ``data.prompts``: ``prompt`` and `SOURCE_ROW`, without duplicates.

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "prompts", progress)


def raw_prompts(recipe: Recipe) -> RawRows:
    """Return the unchecked rows of ``data.prompts`` that `load_prompts` reads, in its order.

    Raises:
        DataError: The source is missing, damaged or in another format.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _source(recipe, "prompts")[0]


def evaluation_prompts(recipe: Recipe, progress: Progress = NO_PROGRESS) -> Dataset:
    """Return the prompts of ``data.prompts`` that no stage trains on.

    They are held out at the smallest held-out share of the three data sets, hence in each of them.
    If a small set has none, any held-out prompt that appears in no training part is used.

    Raises:
        DataError: Every prompt is trained on by some stage, or `load_prompts` fails.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return untrained_prompts(recipe, load_prompts(recipe, progress))


def untrained_prompts(recipe: Recipe, prompts: Split) -> Dataset:
    """Return the `evaluation_prompts` among the rows of ``data.prompts``.

    Raises:
        DataError: Every prompt is trained on by some stage.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    share = _smallest_share(recipe)
    keys = [prompt_key(prompt) for prompt in prompts.held_out["prompt"]]
    chosen = [row for row, key in enumerate(keys) if position(key) < share]
    if not chosen:
        parts = (prompts, load_demonstrations(recipe), load_comparisons(recipe))
        trained = {prompt_key(prompt) for part in parts for prompt in part.train["prompt"]}
        chosen = [row for row, key in enumerate(keys) if key not in trained]
    if not chosen:
        raise DataError(
            "every prompt is trained on by some stage, so none is left for evaluation",
            recipe.data.prompts.source,
            "provide more prompts, or raise held_out in all three data sections",
        )
    return prompts.held_out.select(chosen)


def never_trained_on(recipe: Recipe, prompt: Value) -> bool:
    """Return True if a prompt would be held out in each of the three data sets."""
    return position(prompt_key(prompt)) < _smallest_share(recipe)


def gold_comparisons(recipe: Recipe, n: int = 2000) -> Dataset:
    """Return embedded-world pairs ordered by the gold reward, on prompts that no stage trains on.

    Args:
        recipe: Recipe with the seed and the held-out shares.
        n: Number of pairs generated before prompts used in training are removed.
    """
    share = _smallest_share(recipe)
    rows = (NORMALISERS["comparisons"](row) for row in corpora.gold_comparisons(n, recipe.seed))
    return _table([row for row in rows if position(prompt_key(row["prompt"])) < share])


@dataclass(frozen=True)
class Preview:
    """Check of a data set's first rows.

    Attributes:
        messages: True for conversations, False for text, None if no row can be used.
        report: Row counts.
        form: Name of the form that was read.
        rows: The usable rows.
    """

    messages: bool | None
    report: RowCounts
    form: str = ""
    rows: Sequence[Row] = ()


def preview(
    section: DatasetSection, kind: Kind, rows: int = 1000, *, margins: bool = False
) -> Preview | None:
    """Check the first rows of a local source; return None for a Hub data set.

    Args:
        section: The recipe's section.
        kind: Kind of data.
        rows: Number of rows to check; all are checked if rows depend on each other.
        margins: Comparisons need a margin.

    Raises:
        DataError: The source is missing, damaged, or in another format.
        RecipeError: `columns` has an unknown column, or `preset` is of another kind.
        UnsafeError: The source is a script.
    """
    check_section(kind, section.columns, section.preset)
    if section.source == EMBEDDED:
        return Preview(messages=True, report=RowCounts(EMBEDDED))
    if not is_local(section.source):
        return None
    raw = read_local(section.source, section.split, rows)
    chosen = choose_form(kind, raw, section.columns, section.preset)
    if chosen.form.whole:
        raw = read_local(section.source, section.split)
    raw = raw.only(list(chosen.columns.values()))
    if not chosen.form.whole:
        raw = replace(raw, rows=[raw.rows[row] for row in range(min(rows, len(raw.rows)))])
    report = RowCounts(raw.name, notes=raw.notes)
    items = _converted(raw, chosen, kind, chat=section.as_chat)
    usable = list(_normalised(items, raw, kind, report, section, margins=margins))
    messages = is_conversation(usable[0]["prompt"]) if usable else None
    return Preview(messages, report, chosen.form.name, usable)


def _smallest_share(recipe: Recipe) -> float:
    data = recipe.data
    return min(part.held_out for part in (data.demonstrations, data.comparisons, data.prompts))


def _load(recipe: Recipe, kind: Kind, progress: Progress, *, margins: bool = False) -> Split:
    section: DatasetSection = getattr(recipe.data, kind)
    check_section(kind, section.columns, section.preset)
    key = rows_key(section, kind, recipe.seed, margins=margins)

    def make(parts: PartWriter) -> dict[str, Any]:
        shown = NO_PROGRESS if key is None else progress
        return asdict(_write(recipe, kind, parts, shown, margins=margins))

    entry = cache.stored(key, make, progress)
    report = RowCounts(**entry.record)
    report.notes = tuple(report.notes)
    report.check(bad_limit(recipe.data))
    positions = entry.rows.with_format("numpy")[POSITION][:].tolist()
    outside = held_out_positions(positions, section.held_out, report.name)
    rows = entry.rows.remove_columns(POSITION)

    def part(side: bool) -> Dataset:
        name = None
        if key is not None:
            name = STORED + digest_of({"rows": key, "share": section.held_out, "held_out": side})
        indices = [row for row, out in enumerate(outside) if out is side]
        return rows.select(indices, new_fingerprint=name)

    return Split(part(False), part(True), report)


def _write(
    recipe: Recipe, kind: Kind, parts: PartWriter, progress: Progress, *, margins: bool
) -> RowCounts:
    """Write the usable rows of a source with their positions, and return the counts."""
    section: DatasetSection = getattr(recipe.data, kind)
    raw, chosen = _source(recipe, kind)
    raw = raw.only(list(chosen.columns.values()))
    report = RowCounts(raw.name, notes=raw.notes)
    items: Iterable[tuple[int, Item]]
    items = _converted(raw, chosen, kind, chat=section.as_chat)
    if chosen.form.whole and section.max_rows is not None:
        all_items = list(items)
        items = [all_items[n] for n in _drawn(len(all_items), section.max_rows, recipe.seed)]
    items = followed(items, raw, kind, progress)
    rows = _normalised(items, raw, kind, report, section, margins=margins)
    write_rows((row | {POSITION: position(_key(row))} for row in rows), parts)
    return report


def _source(recipe: Recipe, kind: Kind) -> tuple[RawRows, ChosenForm]:
    """Return the rows to convert, with all of their columns, and their form."""
    section: DatasetSection = getattr(recipe.data, kind)
    raw = _read(section, kind, recipe.seed)
    mapping = section.columns
    if section.source == EMBEDDED:
        mapping = _EMBEDDED_COLUMNS.get(kind, {}) | mapping
    chosen = choose_form(kind, raw, mapping, section.preset)
    # A form of several rows is drawn from after its conversion.
    return (raw if chosen.form.whole else _limited(raw, section.max_rows, recipe.seed)), chosen


def _read(section: DatasetSection, kind: Kind, seed: int) -> RawRows:
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
    drawn = _drawn(len(raw.rows), max_rows, seed)
    place = raw.place
    rows: Any = raw.rows
    taken = rows.select(drawn) if hasattr(rows, "select") else [rows[row] for row in drawn]
    return replace(raw, rows=taken, place=lambda row: place(drawn[row]))


def _drawn(count: int, max_rows: int, seed: int) -> list[int]:
    """Return the indices of a sample, or all in order if there are no more."""
    if max_rows >= count:
        return list(range(count))
    return random.Random(f"max_rows {seed}").sample(range(count), max_rows)  # noqa: S311


def _converted(
    raw: RawRows, chosen: ChosenForm, kind: Kind, *, chat: bool
) -> Iterator[tuple[int, Item]]:
    """Yield rows in TRL's formats, or why there is none, with the number of the source's row."""
    rows = ((number, renamed(row, chosen.columns)) for number, row in enumerate(raw.rows))
    return chosen.form.convert(rows, kind, chat)


def _normalised(
    items: Iterable[tuple[int, Item]],
    raw: RawRows,
    kind: Kind,
    report: RowCounts,
    section: DatasetSection,
    *,
    margins: bool = False,
) -> Iterator[Row]:
    """Yield the usable rows, all in one format, and count the others."""
    conversational: bool | None = None
    seen: set[bytes] = set()
    for number, item in items:
        report.read += 1
        try:
            row = _row(item, kind, chat=section.as_chat, margins=margins)
            conversational = _check_format(row, conversational)
            if kind == "prompts":
                _refuse_repeated(row, seen)
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
        except LeftOutError as error:
            report.leave_out(str(error))
        else:
            report.usable += 1
            yield row | {SOURCE_ROW: number} if kind == "prompts" else row


def _row(item: Item, kind: Kind, *, chat: bool, margins: bool) -> Row:
    if isinstance(item, (BadRowError, LeftOutError)):
        raise item
    row = NORMALISERS[kind](item)
    if margins and row.get("margin") is None:
        raise BadRowError("margin is missing or not a number")
    return as_chat(row) if chat else row


def _refuse_repeated(row: Row, seen: set[bytes]) -> None:
    # Digests: the texts of millions of prompts would fill the memory.
    key = hashlib.sha256(same_prompt_key(row["prompt"]).encode()).digest()
    if key in seen:
        raise LeftOutError(REPEATED)
    seen.add(key)


def _check_format(row: Row, others: bool | None) -> bool:
    """Return True for a conversation; refuse rows of mixed formats."""
    messages = is_conversation(row["prompt"])
    if others is not None and messages != others:
        raise BadRowError("messages beside text" if messages else "text beside messages")
    return messages


def _key(row: Row) -> str:
    """Return the key that a row is split by: its prompt, or its text if it has no prompt."""
    prompt = row["prompt"]
    return prompt_key(prompt if content(prompt).strip() else row["completion"])


def _table(rows: list[dict[str, Any]]) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    parts = [
        Dataset.from_list(rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)
    ]
    return concatenate_datasets(parts) if parts else Dataset.from_list([])
