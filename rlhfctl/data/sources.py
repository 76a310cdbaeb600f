"""Data sets by the name a recipe gives them, as checked rows in two parts."""

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
    """A data set's rows in two parts that share no prompt.

    Attributes:
        train: Rows to train on.
        held_out: Rows to judge on.
        report: What became of the rows that the source had.
    """

    train: Dataset
    held_out: Dataset
    report: RowCounts


def load_demonstrations(recipe: Recipe) -> Split:
    """Return the rows of ``data.demonstrations``: ``prompt``, ``completion``.

    Values are text in all rows, or lists of messages in all rows. The prompt of plain text is "".

    Raises:
        DataError: The source is missing, damaged, of another form, or has no usable row.
        EnvironmentFault: The hub does not give the data set.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "demonstrations")


def load_comparisons(recipe: Recipe) -> Split:
    """Return the rows of ``data.comparisons``: ``prompt``, ``chosen``, ``rejected``.

    ``annotator`` and ``source`` (text) and ``margin`` (a number) are there when the source has
    them; the embedded world's source is the kind of question.

    Raises:
        DataError: The source is missing, damaged, of another form, or has no usable row.
        EnvironmentFault: The hub does not give the data set.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "comparisons")


def load_prompts(recipe: Recipe) -> Split:
    """Return the rows of ``data.prompts``: ``prompt``, none twice.

    Raises:
        DataError: The source is missing, damaged, of another form, or has no usable row.
        EnvironmentFault: The hub does not give the data set.
        UnsafeError: The source is a script.
    """
    return _load(recipe, "prompts")


def evaluation_prompts(recipe: Recipe) -> Dataset:
    """Return the prompts of ``data.prompts`` that no stage trains on.

    They are held out at the smallest of the three data sets' shares, hence in each of them. Where
    a small set has none, those held-out prompts serve that none of the three trains on.

    Raises:
        DataError: Every prompt is trained on by some stage; also as `load_prompts`.
        EnvironmentFault: The hub does not give the data set.
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
            "every prompt is trained on by some stage, so none is left to judge the policy by",
            recipe.data.prompts.source,
            "give more prompts, or a larger held_out share in all three data sections",
        )
    return prompts.held_out.select(chosen)


def never_trained_on(recipe: Recipe, prompt: Value) -> bool:
    """Say whether a prompt would be held out in each of the three data sets, if it stood in them."""
    return position(prompt_key(prompt)) < _smallest_share(recipe)


def gold_comparisons(recipe: Recipe, n: int = 2000) -> Dataset:
    """Return pairs of the embedded world ordered by its gold reward, on prompts never trained on.

    Args:
        recipe: Gives the seed and the held-out shares.
        n: Pairs generated before those on other prompts are left out.
    """
    share = _smallest_share(recipe)
    rows = (NORMALISERS["comparisons"](row) for row in corpora.gold_comparisons(n, recipe.seed))
    return _table([row for row in rows if position(prompt_key(row["prompt"])) < share])


@dataclass(frozen=True)
class Glance:
    """A data set's first rows, looked at before anything is loaded for good.

    Attributes:
        messages: Whether they are conversations; None when no row can be used.
        report: What would become of them.
    """

    messages: bool | None
    report: RowCounts


def glance(section: DatasetSection, kind: Kind, rows: int = 1000) -> Glance | None:
    """Look at the first rows of a local source; None for a hub data set, which stays untouched.

    Raises:
        DataError: The source is missing, damaged, or of another form.
        RecipeError: `columns` names a column that is none of ours.
        UnsafeError: The source is a script.
    """
    check_mapping(kind, section.columns)
    if section.source == EMBEDDED:
        return Glance(messages=True, report=RowCounts(EMBEDDED))
    if not is_local(section.source):
        return None
    raw = read_local(section.source, section.split, rows)
    columns = choose_columns(kind, raw.columns, section.columns, raw.name)
    report = RowCounts(raw.name)
    first = replace(raw, rows=[raw.rows[row] for row in range(min(rows, len(raw.rows)))])
    usable = list(_normalised(first, columns, kind, report))
    return Glance(is_conversation(usable[0]["prompt"]) if usable else None, report)


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
    wanted = max_rows or _EMBEDDED_ROWS[kind]
    if kind == "comparisons":
        pairs = max(1, wanted // labels_per_pair)
        rows = corpora.comparisons(pairs, seed, labels_per_pair)
    else:
        make = corpora.demonstrations if kind == "demonstrations" else corpora.prompts
        rows = make(wanted, seed)
    return RawRows(EMBEDDED, tuple(rows[0]), rows, lambda row: f"{EMBEDDED} row {row + 1}")


def _limited(raw: RawRows, max_rows: int | None, seed: int) -> RawRows:
    """Take `max_rows` of a source's rows, drawn by the seed."""
    if max_rows is None or max_rows >= len(raw.rows):
        return raw
    drawn = random.Random(f"max_rows {seed}").sample(range(len(raw.rows)), max_rows)  # noqa: S311
    rows, place = raw.rows, raw.place
    taken = rows.select(drawn) if hasattr(rows, "select") else [rows[row] for row in drawn]
    return replace(raw, rows=taken, place=lambda row: place(drawn[row]))


def _normalised(
    raw: RawRows, columns: Mapping[str, str], kind: Kind, report: RowCounts
) -> Iterator[Row]:
    """Yield the rows that can be used, all of one form, and count the others."""
    normalise = NORMALISERS[kind]
    conversational: bool | None = None
    seen: set[str] = set()
    for number, source in enumerate(raw.rows):
        report.read += 1
        try:
            row = normalise({ours: source.get(theirs) for ours, theirs in columns.items()})
            conversational = _form(row, conversational)
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
            continue
        if kind == "prompts":
            key = prompt_key(row["prompt"])
            if key in seen:
                report.duplicates += 1
                continue
            seen.add(key)
        report.kept += 1
        yield row


def _form(row: Row, others: bool | None) -> bool:
    """Return whether a row is a conversation; rows of both forms cannot be trained on together."""
    form = is_conversation(row["prompt"])
    if others is not None and form != others:
        raise BadRowError("messages beside text" if form else "text beside messages")
    return form


def _key(row: Row) -> str:
    """Return what a row is split by: its prompt, or all of a plain text that has none."""
    prompt = row["prompt"]
    return prompt_key(prompt if content(prompt).strip() else row["completion"])


def _table(rows: list[dict[str, Any]]) -> Dataset:
    from datasets import Dataset, concatenate_datasets

    parts = [Dataset.from_list(rows[at : at + _BATCH]) for at in range(0, len(rows), _BATCH)]
    return concatenate_datasets(parts) if parts else Dataset.from_list([])
