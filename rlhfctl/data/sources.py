"""Data sets of a recipe, as checked rows split into training and held-out parts."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from rlhfctl.data import cache
from rlhfctl.data.arrow_parts import CannotStoreError
from rlhfctl.data.digests import STORED, digest_of
from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.form_table import (
    ChosenForm,
    check_section,
    choose_form,
    named_forms,
    not_read,
    renamed,
)
from rlhfctl.data.mixture import PART, Shares, mixed, with_columns
from rlhfctl.data.progress import NO_PROGRESS
from rlhfctl.data.raw import JoinedRows, RawRows
from rlhfctl.data.row_check import (
    MESSAGES_BESIDE_TEXT,
    TEXT_BESIDE_MESSAGES,
    RowCheck,
)
from rlhfctl.data.row_counts import RowCounts, bad_limit
from rlhfctl.data.rows import NORMALISERS, Row, content, is_conversation
from rlhfctl.data.source_rows import TASKS, drawn_rows, refuse_whole, source_rows
from rlhfctl.data.split import held_out_positions, position, prompt_key
from rlhfctl.data.stored_rows import (
    POSITION,
    followed,
    no_cache_to_stream_to,
    rows_key,
    write_rows,
)
from rlhfctl.errors import DataError
from rlhfctl.world import corpora

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from datasets import Dataset

    from rlhfctl.data.arrow_parts import PartWriter
    from rlhfctl.data.forms import Item, Kind
    from rlhfctl.data.progress import Progress
    from rlhfctl.data.rows import Value
    from rlhfctl.recipe.data import DatasetSection, SourceSection
    from rlhfctl.recipe.schema import Recipe

_BATCH = 1000


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
    sources = [source_rows(part, "prompts", recipe.seed)[0] for part in recipe.data.prompts.parts]
    if len(sources) == 1:
        return sources[0]
    columns = tuple(dict.fromkeys(column for raw in sources for column in raw.columns))
    rows = JoinedRows(sources)
    return RawRows(recipe.data.prompts.title, columns, rows, rows.place)


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
            recipe.data.prompts.title,
            "provide more prompts, or raise held_out in all three data sections",
        )
    return prompts.held_out.select(chosen)


def never_trained_on(recipe: Recipe, prompt: Value) -> bool:
    """Return True if a prompt would be held out in each of the three data sets."""
    return position(prompt_key(prompt)) < _smallest_share(recipe)


def gold_comparisons(recipe: Recipe, n: int = 2000) -> Dataset:
    """Return embedded-world pairs ordered by the gold reward, on prompts that no stage trains on.

    Args:
        recipe: Recipe with embedded comparisons, whose task the pairs are of.
        n: Number of pairs generated before prompts used in training are removed.
    """
    return _gold_table(n, recipe.seed, _smallest_share(recipe), recipe.data.comparisons.source)


@lru_cache(maxsize=4)  # the reward model, the held-out one and the evaluation take the same pairs
def _gold_table(n: int, seed: int, share: float, source: str) -> Dataset:
    pairs = corpora.gold_comparisons(n, seed, TASKS[source])
    rows = (NORMALISERS["comparisons"](row) for row in pairs)
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

    def joined(self, other: Preview) -> Preview:
        """Return this with the rows of another source of the same format."""
        return replace(self, rows=[*self.rows, *other.rows])


def preview(
    section: SourceSection, kind: Kind, rows: int = 1000, *, margins: bool = False
) -> Preview | None:
    """Check the first rows of a local source; return None for a Hub data set.

    Args:
        section: One source.
        kind: Kind of data.
        rows: Number of rows to check; all are checked if rows depend on each other.
        margins: Comparisons need a margin.

    Raises:
        DataError: The source is missing, damaged, or in another format.
        RecipeError: `columns` has an unknown column, or `preset` is of another kind.
        UnsafeError: The source is a script.
    """
    check_section(kind, section.columns, section.preset)
    if section.is_generated:
        return Preview(messages=True, report=RowCounts(section.source))
    if not is_local(section.source):
        if section.preset is not None:
            refuse_whole(section, *named_forms(kind, section.preset))
        return None
    raw = read_local(section.source, section.split, rows, streaming=section.streaming)
    chosen = choose_form(kind, raw, section.columns, section.preset)
    refuse_whole(section, chosen.form)
    if chosen.form.whole:
        raw = read_local(section.source, section.split)
    unread = not_read(kind, raw, chosen)
    raw = raw.only(list(chosen.columns.values()))
    if not chosen.form.whole:
        raw = replace(raw, rows=[raw.rows[row] for row in range(min(rows, len(raw.rows)))])
    report = RowCounts(raw.name, notes=_notes(raw, chosen, unread))
    items = _converted(raw, chosen, kind, chat=section.as_chat)
    check = RowCheck(kind, margins=margins)
    usable = list(check.usable(items, raw, report, chat=section.as_chat))
    messages = is_conversation(usable[0]["prompt"]) if usable else None
    return Preview(messages, report, chosen.form.name, usable)


def _smallest_share(recipe: Recipe) -> float:
    data = recipe.data
    return min(part.held_out for part in (data.demonstrations, data.comparisons, data.prompts))


def _load(recipe: Recipe, kind: Kind, progress: Progress, *, margins: bool = False) -> Split:
    section: DatasetSection = getattr(recipe.data, kind)
    for part in section.parts:
        check_section(kind, part.columns, part.preset)
    key = rows_key(section.parts, kind, recipe.seed, margins=margins)

    def make(parts: PartWriter) -> dict[str, Any]:
        shown = NO_PROGRESS if key is None else progress
        reports = _write(recipe, kind, parts, shown, margins=margins)
        return {"sources": [asdict(report) for report in reports]}

    streamed = any(part.streaming for part in section.parts)
    try:
        entry = cache.stored(key, make, progress, in_memory=not streamed)
    except CannotStoreError as error:
        raise no_cache_to_stream_to(f"it cannot be written: {error}") from error
    reports = [RowCounts.of(record) for record in entry.record["sources"]]
    for report in reports:
        report.check(bad_limit(recipe.data), _mixed_hint(report) if section.sources else "")
    report = reports[0] if not section.sources else RowCounts.total(section.title, reports)
    columns = entry.rows.with_format("numpy")
    positions = columns[POSITION][:]
    outside = held_out_positions(positions, section.held_out, report.name)
    rows = entry.rows.remove_columns(POSITION)
    if not section.sources:
        train: Sequence[int] = array("q", (row for row, out in enumerate(outside) if not out))
        held_out: Sequence[int] = array("q", (row for row, out in enumerate(outside) if out))
    else:
        shares = Shares.of(section, recipe.seed)
        numbers = columns[PART][:].tolist()
        train, held_out, report.sources = mixed(numbers, outside, shares, reports)
        rows = rows.remove_columns(PART)
    return Split(_selected(rows, train, key), _selected(rows, held_out, key), report)


def _selected(rows: Dataset, indices: Sequence[int], key: str | None) -> Dataset:
    """Return some rows; of stored ones they are named by what determines them."""
    name = None
    if key is not None:
        chosen = hashlib.sha256(array("q", indices).tobytes()).hexdigest()
        name = STORED + digest_of({"rows": key, "indices": chosen})
    return rows.select(indices, new_fingerprint=name)


def _notes(raw: RawRows, chosen: ChosenForm, unread: str) -> tuple[str, ...]:
    return (*raw.notes, *filter(None, (chosen.form.note, unread)))


def _rows_before(sources: Sequence[RawRows]) -> int:
    return sum(len(raw.rows) for raw in sources)


def _mixed_hint(report: RowCounts) -> str:
    """Return advice where a source of a mixture has another form than those before it."""
    if not {MESSAGES_BESIDE_TEXT, TEXT_BESIDE_MESSAGES} & set(report.dropped):
        return ""
    return "the sources need one form; as_chat: true of a source converts its text to messages"


def _write(
    recipe: Recipe, kind: Kind, parts: PartWriter, progress: Progress, *, margins: bool
) -> list[RowCounts]:
    """Write the usable rows of all sources with their positions, and return the counts of each."""
    section: DatasetSection = getattr(recipe.data, kind)
    reports: list[RowCounts] = []
    check = RowCheck(kind, margins=margins)
    raws: list[RawRows] = []
    streams: list[Iterator[Row]] = []
    for part in section.parts:
        raw, chosen = source_rows(part, kind, recipe.seed)
        unread = "" if part.is_generated else not_read(kind, raw, chosen)
        report = RowCounts(raw.name, notes=_notes(raw, chosen, unread))
        reports.append(report)
        raw = raw.only(list(chosen.columns.values()))
        items = followed(_items(part, raw, chosen, kind, recipe.seed), raw, kind, progress)
        # Raw rows of the sources before are counted when this one is reached.
        start = partial(_rows_before, tuple(raws)) if kind == "prompts" else int
        raws.append(raw)
        streams.append(check.usable(items, raw, report, chat=part.as_chat, start=start))
    if not section.sources:
        write_rows((row | {POSITION: position(_key(row))} for row in streams[0]), parts)
        return reports
    names = [part.source for part in section.parts]
    rows = with_columns(streams, kind, names)
    write_rows((row | {POSITION: position(_key(row))} for row in rows), parts)
    return reports


def _items(
    part: SourceSection, raw: RawRows, chosen: ChosenForm, kind: Kind, seed: int
) -> Iterable[tuple[int, Item]]:
    """Return the converted rows of a source; `max_rows` of them where rows depend on each other."""
    items = _converted(raw, chosen, kind, chat=part.as_chat)
    if not chosen.form.whole or part.max_rows is None:
        return items
    everything = list(items)
    return [everything[n] for n in drawn_rows(len(everything), part.max_rows, seed)]


def _converted(
    raw: RawRows, chosen: ChosenForm, kind: Kind, *, chat: bool
) -> Iterator[tuple[int, Item]]:
    """Yield rows in TRL's formats, or why there is none, with the number of the source's row."""
    rows = ((number, renamed(row, chosen.columns)) for number, row in enumerate(raw.rows))
    return chosen.form.convert(rows, kind, chat)


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
