"""Data sets of a recipe, as checked rows split into training and held-out parts."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.hub import read_hub
from rlhfctl.data.raw import RawRows, check_mapping, choose_columns
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import NORMALISERS, BadRowError, Row, content, is_conversation
from rlhfctl.data.split import held_out, position, prompt_key
from rlhfctl.errors import DataError
from rlhfctl.recipe.schema import ComparisonsSection
from rlhfctl.world import corpora

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from datasets import Dataset

    from rlhfctl.data.rows import Value
    from rlhfctl.recipe.schema import DatasetSection, Recipe

Kind = Literal["demonstrations", "comparisons", "prompts"]

EMBEDDED = "embedded"
_EMBEDDED_ROWS: dict[str, int] = {"demonstrations": 2000, "comparisons": 4000, "prompts": 4000}
_EMBEDDED_COLUMNS: dict[str, dict[str, str]] = {"comparisons": {"source": "kind"}}
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


def load_demonstrations(recipe: Recipe) -> Split:
    """Return the rows of ``data.demonstrations``: ``prompt``, ``completion``.

    All rows have text, or all rows have lists of messages. Plain text has the prompt "".

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "demonstrations")


def load_comparisons(recipe: Recipe) -> Split:
    """Return the rows of ``data.comparisons``: ``prompt``, ``chosen``, ``rejected``.

    ``annotator`` and ``source`` (text) and ``margin`` (a number) are present if the source has
    them. In the embedded world, ``source`` is the kind of question.

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "comparisons")


def load_prompts(recipe: Recipe) -> Split:
    """Return the rows of ``data.prompts``: ``prompt``, without duplicates.

    Raises:
        DataError: The source is missing, damaged, in another format, or has no usable row.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "prompts")


def evaluation_prompts(recipe: Recipe) -> Dataset:
    """Return the prompts of ``data.prompts`` that no stage trains on.

    They are held out at the smallest held-out share of the three data sets, hence in each of them.
    If a small set has none, any held-out prompt that appears in no training part is used.

    Raises:
        DataError: Every prompt is trained on by some stage, or `load_prompts` fails.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    share = _smallest_share(recipe)
    prompts = load_prompts(recipe)
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
    """

    messages: bool | None
    report: RowCounts


def preview(section: DatasetSection, kind: Kind, rows: int = 1000) -> Preview | None:
    """Check the first rows of a local source; return None for a Hub data set.

    Raises:
        DataError: The source is missing, damaged, or in another format.
        RecipeError: `columns` has an unknown column.
        UnsafeError: The source is a script.
    """
    check_mapping(kind, section.columns)
    if section.source == EMBEDDED:
        return Preview(messages=True, report=RowCounts(EMBEDDED))
    if not is_local(section.source):
        return None
    raw = read_local(section.source, section.split, rows)
    columns = choose_columns(kind, raw.columns, section.columns, raw.name)
    report = RowCounts(raw.name)
    first = replace(raw, rows=[raw.rows[row] for row in range(min(rows, len(raw.rows)))])
    usable = list(_normalised(first, columns, kind, report))
    return Preview(is_conversation(usable[0]["prompt"]) if usable else None, report)


def _smallest_share(recipe: Recipe) -> float:
    data = recipe.data
    return min(part.held_out for part in (data.demonstrations, data.comparisons, data.prompts))


def _load(recipe: Recipe, kind: Kind) -> Split:
    section: DatasetSection = getattr(recipe.data, kind)
    raw = _limited(_read(section, kind, recipe.seed), section.max_rows, recipe.seed)
    mapping = section.columns
    if section.source == EMBEDDED:
        mapping = _EMBEDDED_COLUMNS.get(kind, {}) | mapping
    columns = choose_columns(kind, raw.columns, mapping, raw.name)
    report = RowCounts(raw.name)
    rows = list(_normalised(raw, columns, kind, report))
    report.check(recipe.data.bad_rows)
    mask = held_out([_key(row) for row in rows], section.held_out, raw.name)
    return Split(
        _table([row for row, outside in zip(rows, mask, strict=True) if not outside]),
        _table([row for row, outside in zip(rows, mask, strict=True) if outside]),
        report,
    )


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
    drawn = random.Random(f"max_rows {seed}").sample(range(len(raw.rows)), max_rows)  # noqa: S311
    rows, place = raw.rows, raw.place
    taken = rows.select(drawn) if hasattr(rows, "select") else [rows[row] for row in drawn]
    return replace(raw, rows=taken, place=lambda row: place(drawn[row]))


def _normalised(
    raw: RawRows, columns: Mapping[str, str], kind: Kind, report: RowCounts
) -> Iterator[Row]:
    """Yield the usable rows, all in one format, and count the others."""
    normalise = NORMALISERS[kind]
    conversational: bool | None = None
    seen: set[str] = set()
    for number, source in enumerate(raw.rows):
        report.read += 1
        try:
            row = normalise({ours: source.get(theirs) for ours, theirs in columns.items()})
            conversational = _check_format(row, conversational)
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
            continue
        if kind == "prompts":
            key = prompt_key(row["prompt"])
            if key in seen:
                report.duplicates += 1
                continue
            seen.add(key)
        report.usable += 1
        yield row


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
