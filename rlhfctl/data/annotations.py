"""Labels of several annotators, read from any documented format.

The first format that fits is used (`columns` renames; other columns are ignored):

1. `votes` (or `labels`): each row has all labels of one item, as a mapping of annotator to label, a
   list of `{annotator, label}`, or a plain list of anonymous labels.
2. `label_NAME` or `vote_NAME`: one column per annotator, or the columns that `annotators` lists, or
   `annotator1`, `annotator2`, ... (PandaLM).
3. `annotator` and `label`: one row per label. The item is `item` if present, else the combination
   of `prompt`, `response_a` and `response_b` (or `response1` and `response2`).
4. `chosen` and `rejected`, with `prompt` and `annotator` if present: one row per choice. All
   choices between the same two responses to a prompt are labels of one item.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.data.files import read_local
from rlhfctl.data.form_table import TRL, choose_form, renamed
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import BadRowError, Value, comparison
from rlhfctl.errors import DataError, UsageError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from rlhfctl.data.raw import RawRows

Pair = tuple[Value, Value, Value]

COLUMNS = (
    *("prompt", "chosen", "rejected", "annotator", "label", "item"),
    *("response_a", "response_b", "votes", "annotators"),
)
FIRST_SECOND = ("first", "second")
_PREFIXES = ("label_", "vote_")
_NUMBERED = re.compile(r"annotator_?\d+")
_RESPONSES = (("response_a", "response_b"), ("response1", "response2"))


@dataclass
class Votes:
    """Labels in the order read, each for one item by one annotator.

    Attributes:
        name: The source.
        item: [labels] item index.
        annotator: [labels] annotator index; all 0 if `annotators` is empty.
        label: [labels] class index.
        annotators: Annotator names; empty for anonymous labels.
        classes: Class names.
        cluster: [items] prompt index, or item index without a prompt.
        pairs: [items] prompt and two responses, in an order independent of the labels. For choices,
            class 0 is the first response. Empty for labels of items without responses.
        repeated: Number of further labels of an item by the same annotator, which are ignored.
    """

    name: str
    item: list[int] = field(default_factory=list)
    annotator: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    annotators: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    cluster: list[int] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    repeated: int = 0

    @property
    def most_labels(self) -> int:
        """Largest number of labels per item."""
        counts = [0] * len(self.cluster)
        for item in self.item:
            counts[item] += 1
        return max(counts, default=0)


def comparison_votes(rows: Iterable[Mapping[str, Any]], name: str) -> Votes:
    """Return the choices of normalised comparisons, one item per pair of responses to a prompt.

    Args:
        rows: `prompt`, `chosen`, `rejected` and, if available, `annotator`.
        name: The source.
    """
    builder = _Builder(Votes(name))
    builder.expect(FIRST_SECOND)
    for row in rows:
        builder.add_choice(row)
    return builder.votes


def read_votes(source: str, columns: Mapping[str, str]) -> tuple[Votes, RowCounts]:
    """Read the labels of a local file in any format that this module documents.

    Args:
        source: A json, jsonl, csv or parquet file, or a pattern that matches several.
        columns: Our column -> the source's column; `annotators` -> several, separated by commas.

    Raises:
        DataError: The file is missing, damaged, in another format, or has no label.
        UsageError: `columns` renames an unknown column.
        UnsafeError: The source is a script.
    """
    unknown = [ours for ours in columns if ours not in COLUMNS]
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} is not a label column; valid columns are {', '.join(COLUMNS)}",
            "--columns",
        )
    raw = read_local(source, "train")
    _check_present(raw, columns)
    names = {column: column for column in raw.columns} | {
        ours: theirs for ours, theirs in columns.items() if ours != "annotators"
    }
    report = RowCounts(raw.name)
    builder = _Builder(Votes(raw.name))
    add = _reader(raw, names, columns, builder)
    for number, row in enumerate(raw.rows):
        report.read += 1
        try:
            add(number, row)
        except BadRowError as error:
            report.drop(str(error), raw.place(number))
        else:
            report.usable += 1
    report.check(1.0)
    if not builder.votes.item:
        raise DataError("no row has a label", raw.name)
    return builder.votes, report


class _Builder:
    """Builder of `Votes` that numbers items, annotators and classes in order of appearance."""

    def __init__(self, votes: Votes) -> None:
        self.votes = votes
        self._items: dict[Hashable, int] = {}
        self._clusters: dict[Hashable, int] = {}
        self._annotators: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def expect(self, classes: Sequence[str]) -> None:
        """Number classes before any label is added."""
        self.votes.classes.extend(classes)
        self._classes = {name: index for index, name in enumerate(classes)}

    def add(self, item: Hashable, cluster: Hashable, annotator: str | None, label: str) -> bool:
        """Add one label and return True if its item is new."""
        votes = self.votes
        number = self._items.setdefault(item, len(self._items))
        new = number == len(votes.cluster)
        if new:
            votes.cluster.append(self._clusters.setdefault(cluster, len(self._clusters)))
        annotator_index = 0
        if annotator is not None:
            annotator_index = self._annotators.setdefault(annotator, len(self._annotators))
            if annotator_index == len(votes.annotators):
                votes.annotators.append(annotator)
            if (number, annotator_index) in self._seen:
                votes.repeated += 1
                return new
            self._seen.add((number, annotator_index))
        if self._classes.setdefault(label, len(self._classes)) == len(votes.classes):
            votes.classes.append(label)
        votes.item.append(number)
        votes.annotator.append(annotator_index)
        votes.label.append(self._classes[label])
        return new

    def add_choice(self, row: Mapping[str, Any]) -> None:
        """Add one comparison.

        The order of the two responses must not depend on the choice. Otherwise annotators would
        appear to favour the first response, and chance agreement would be wrong.
        """
        texts = {side: _text(row[side]) for side in ("chosen", "rejected")}
        prompt = _text(row["prompt"])
        first, second = sorted(texts, key=lambda side: _shuffled_key(prompt, texts[side]))
        annotator = row.get("annotator")
        key = (prompt, texts[first], texts[second])
        label = FIRST_SECOND[int(second == "chosen")]
        if self.add(key, prompt, annotator, label):
            self.votes.pairs.append((row["prompt"], row[first], row[second]))


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _shuffled_key(prompt: str, response: str) -> bytes:
    """Return a sort key that is independent of a response's content."""
    return hashlib.sha256(f"{prompt}\0{response}".encode()).digest()


def _check_present(raw: RawRows, columns: Mapping[str, str]) -> None:
    for ours, theirs in columns.items():
        requested = theirs.split(",") if ours == "annotators" else [theirs]
        for column in requested:
            if column not in raw.columns:
                raise DataError(
                    f"there is no column {column}; found: {', '.join(raw.columns[:20])}",
                    raw.name,
                    f"set --columns {ours}=NAME to one of them",
                )


def _reader(
    raw: RawRows, names: Mapping[str, str], columns: Mapping[str, str], builder: _Builder
) -> Callable[[int, Mapping[str, Any]], None]:
    """Return the function that adds one row's labels, for the first format that fits."""
    wide = _wide_columns(raw, columns)
    pair = _PairColumns.among(names)
    votes_column = names.get("votes") or names.get("labels")
    if votes_column or wide:

        def labels_of(row: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
            if votes_column:
                return _labels_in(row.get(votes_column))
            return ((name, row.get(column)) for name, column in wide.items())

        return lambda number, row: _add_all(builder, names, pair, number, row, labels_of(row))
    if {"annotator", "label"} <= names.keys():
        keys = ["item"] if "item" in names else ["prompt", "response_a", "response_b"]
        if not set(keys[-2:]) <= names.keys():
            raise DataError(
                "labels need a column that identifies the item: item, or response_a and "
                f"response_b; found: {', '.join(raw.columns[:20])}",
                raw.name,
                "name it with --columns item=NAME",
            )
        used = [names[key] for key in keys if key in names]
        return lambda _, row: _add_one(builder, names, pair, used, row)
    if {"chosen", "rejected"} <= names.keys():
        builder.expect(FIRST_SECOND)
        ours = {our: column for our, column in columns.items() if our in _CHOICE}
        chosen = choose_form("comparisons", raw, ours, TRL).columns
        return lambda _, row: builder.add_choice(_choice(row, chosen))
    raise DataError(
        "labels of several annotators need a column votes; or label_NAME columns; or annotator and "
        f"label; or chosen and rejected; found: {', '.join(raw.columns[:20])}",
        raw.name,
        "map them with --columns OURS=THEIRS",
    )


_CHOICE = ("prompt", "chosen", "rejected", "annotator")


def _choice(row: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    normalised = comparison(renamed(row, chosen), needs_prompt=False)
    if normalised.get("annotator") == "":
        raise BadRowError("annotator is missing")
    return normalised


def _wide_columns(raw: RawRows, columns: Mapping[str, str]) -> dict[str, str]:
    """Return annotator -> column, for files with one column per annotator."""
    if "annotators" in columns:
        return {column: column for column in columns["annotators"].split(",")}
    return {
        column.removeprefix(prefix): column
        for column in raw.columns
        for prefix in _PREFIXES
        if column.startswith(prefix) and column != prefix
    } or _numbered_annotators(raw)


def _numbered_annotators(raw: RawRows) -> dict[str, str]:
    """Return the columns annotator1, annotator2, ... of PandaLM's form."""
    numbered = {name: name for name in raw.columns if _NUMBERED.fullmatch(name)}
    return numbered if len(numbered) > 1 else {}


@dataclass(frozen=True)
class _PairColumns:
    """Columns of the prompt, and of two responses if the file has them."""

    prompt: tuple[str, ...]
    responses: tuple[str, str] | None

    @classmethod
    def among(cls, names: Mapping[str, str]) -> _PairColumns:
        """Return the columns, from our names or those of the file itself."""
        prompt = ("prompt",) if "prompt" in names else ("instruction", "input")
        responses = next((pair for pair in _RESPONSES if set(pair) <= names.keys()), None)
        return cls(
            tuple(names[name] for name in prompt if name in names),
            responses and (names[responses[0]], names[responses[1]]),
        )

    def prompt_of(self, row: Mapping[str, Any]) -> str | None:
        """Return a row's prompt; None if it has none."""
        parts = [part for column in self.prompt if (part := _named(row.get(column))) is not None]
        return "\n\n".join(parts) or None

    def add_to(self, votes: Votes, row: Mapping[str, Any]) -> None:
        """Record the responses of a new item."""
        if self.responses is not None:
            first, second = (_named(row.get(column)) or "" for column in self.responses)
            votes.pairs.append((self.prompt_of(row) or "", first, second))


def _add_one(
    builder: _Builder,
    names: Mapping[str, str],
    pair: _PairColumns,
    used: list[str],
    row: Mapping[str, Any],
) -> None:
    label, annotator = _named(row.get(names["label"])), _named(row.get(names["annotator"]))
    if annotator is None:
        raise BadRowError("annotator is missing")
    item = tuple(_named(row.get(column)) for column in used)
    if None in item:
        raise BadRowError(f"{used[item.index(None)]} is missing")
    if label is not None:
        prompt = pair.prompt_of(row)
        if builder.add(item, item if prompt is None else prompt, annotator, label):
            pair.add_to(builder.votes, row)


def _add_all(
    builder: _Builder,
    names: Mapping[str, str],
    pair: _PairColumns,
    number: int,
    row: Mapping[str, Any],
    labels: Iterable[tuple[str | None, Any]],
) -> None:
    item = _named(row.get(names["item"])) if "item" in names else number
    prompt = pair.prompt_of(row)
    for annotator, value in labels:
        label = _named(value)
        if label is not None and builder.add(
            item, item if prompt is None else prompt, annotator, label
        ):
            pair.add_to(builder.votes, row)


def _labels_in(cell: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield each annotator and label in a cell with several labels; CSV cells are JSON.

    Raises:
        BadRowError: The cell has another format.
    """
    value = cell
    if isinstance(cell, str) and cell.strip():
        try:
            value = parse_json(cell)
        except ValueError as error:
            raise BadRowError("votes is not JSON") from error
    if value is None or value == "":
        return
    if isinstance(value, Mapping):
        yield from ((str(name), label) for name, label in value.items())
        return
    if not isinstance(value, list):
        raise BadRowError("votes is neither a mapping nor a list")
    named = [isinstance(part, Mapping) for part in value]
    if any(named) and not all(named):
        raise BadRowError("votes mixes labels with and without annotators")
    for part in value:
        if not isinstance(part, Mapping):
            yield None, part
        elif _named(part.get("annotator")) is None or "label" not in part:
            raise BadRowError("votes has an entry without annotator and label")
        else:
            yield _named(part["annotator"]), part["label"]


def _named(value: Any) -> str | None:
    """Return a cell as a name, or None if it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return str(value).strip() or None
