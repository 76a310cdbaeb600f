"""Who said what about which item: labels of several annotators, read from any documented form.

The forms, the first that fits (`columns` renames; other columns are ignored):

1. `votes` (or `labels`): in each row all labels of one item, as a mapping of annotator to label, a
   list of `{annotator, label}`, or a plain list, whose labels are nobody's in particular.
2. `label_NAME` or `vote_NAME` columns, one an annotator, or those that `annotators` lists.
3. `annotator` and `label`: a row a label. Its item is what `item` says, else `prompt`, `response_a`
   and `response_b` together.
4. `chosen` and `rejected`, with `prompt` and `annotator` where there are such: a row a choice, all
   choices between the same two responses to a prompt being labels of one item.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.data.files import read_local
from rlhfctl.data.raw import RawRows, choose_columns
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import BadRowError, Value, comparison
from rlhfctl.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

Pair = tuple[Value, Value, Value]

COLUMNS = (
    *("prompt", "chosen", "rejected", "annotator", "label", "item"),
    *("response_a", "response_b", "votes", "annotators"),
)
FIRST_SECOND = ("first", "second")
_PREFIXES = ("label_", "vote_")


@dataclass
class Votes:
    """Labels, each of one item by one annotator, in the order in which they were read.

    Attributes:
        name: The source.
        item: [labels] number of the item.
        annotator: [labels] number of the annotator; all 0 where `annotators` is empty.
        label: [labels] number of the class.
        annotators: Their names; empty where labels are nobody's in particular.
        classes: Their names.
        cluster: [items] number of the prompt, else of the item.
        pairs: [items] prompt and two responses, in an order that no label decides, where choices
            were read: class 0 is the first. Empty for other labels.
        repeated: Further labels of an item by the same annotator, which are left out.
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
        """The largest number of labels that an item has."""
        counts = [0] * len(self.cluster)
        for item in self.item:
            counts[item] += 1
        return max(counts, default=0)


def comparison_votes(rows: Iterable[Mapping[str, Any]], name: str) -> Votes:
    """Return the choices of normalised comparisons, one item for each two responses to a prompt.

    Args:
        rows: `prompt`, `chosen`, `rejected`, and `annotator` where it is known.
        name: The source.
    """
    builder = _Builder(Votes(name))
    builder.expect(FIRST_SECOND)
    for row in rows:
        builder.add_choice(row)
    return builder.votes


def read_votes(source: str, columns: Mapping[str, str]) -> tuple[Votes, RowCounts]:
    """Read the labels of a local file, in any form that this module documents.

    Args:
        source: A json, jsonl, csv or parquet file, or several by a pattern.
        columns: Our column -> the source's; `annotators` -> several, with commas between.

    Raises:
        DataError: There is no such file, it is damaged, of another form, or has no label.
        UsageError: A column is renamed that is none of ours.
        UnsafeError: The source is a script.
    """
    unknown = [ours for ours in columns if ours not in COLUMNS]
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} is no column of labels; they are {', '.join(COLUMNS)}",
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
            report.kept += 1
    report.check("drop")
    if not builder.votes.item:
        raise DataError("there is no label in any row", raw.name)
    return builder.votes, report


class _Builder:
    """Numbers items, annotators and classes as they are met."""

    def __init__(self, votes: Votes) -> None:
        self.votes = votes
        self._items: dict[Hashable, int] = {}
        self._clusters: dict[Hashable, int] = {}
        self._annotators: dict[str, int] = {}
        self._classes: dict[str, int] = {}
        self._seen: set[tuple[int, int]] = set()

    def expect(self, classes: Sequence[str]) -> None:
        """Number classes before any label is met."""
        self.votes.classes.extend(classes)
        self._classes = {name: at for at, name in enumerate(classes)}

    def add(self, item: Hashable, cluster: Hashable, annotator: str | None, label: str) -> bool:
        """Take one label; say whether its item is new."""
        votes = self.votes
        number = self._items.setdefault(item, len(self._items))
        new = number == len(votes.cluster)
        if new:
            votes.cluster.append(self._clusters.setdefault(cluster, len(self._clusters)))
        who = 0
        if annotator is not None:
            who = self._annotators.setdefault(annotator, len(self._annotators))
            if who == len(votes.annotators):
                votes.annotators.append(annotator)
            if (number, who) in self._seen:
                votes.repeated += 1
                return new
            self._seen.add((number, who))
        if self._classes.setdefault(label, len(self._classes)) == len(votes.classes):
            votes.classes.append(label)
        votes.item.append(number)
        votes.annotator.append(who)
        votes.label.append(self._classes[label])
        return new

    def add_choice(self, row: Mapping[str, Any]) -> None:
        """Take one comparison.

        Which response is the first must not depend on who won: else annotators would seem to favour
        the first, and agreement by chance would be mistaken.
        """
        texts = {side: _text(row[side]) for side in ("chosen", "rejected")}
        prompt = _text(row["prompt"])
        first, second = sorted(texts, key=lambda side: _mixed(prompt, texts[side]))
        annotator = row.get("annotator")
        key = (prompt, texts[first], texts[second])
        label = FIRST_SECOND[int(second == "chosen")]
        if self.add(key, prompt, annotator, label):
            self.votes.pairs.append((row["prompt"], row[first], row[second]))


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _mixed(prompt: str, response: str) -> bytes:
    """Return a response's place in an order that has nothing to do with what it says."""
    return hashlib.sha256(f"{prompt}\0{response}".encode()).digest()


def _check_present(raw: RawRows, columns: Mapping[str, str]) -> None:
    for ours, theirs in columns.items():
        wanted = theirs.split(",") if ours == "annotators" else [theirs]
        for column in wanted:
            if column not in raw.columns:
                raise DataError(
                    f"there is no column {column}; found: {', '.join(raw.columns[:20])}",
                    raw.name,
                    f"set --columns {ours}=NAME to one of them",
                )


def _reader(
    raw: RawRows, names: Mapping[str, str], columns: Mapping[str, str], builder: _Builder
) -> Callable[[int, Mapping[str, Any]], None]:
    """Return what takes the labels of one row, for the first form that fits."""
    wide = _wide_columns(raw, columns)
    together = names.get("votes") or names.get("labels")
    if together or wide:

        def find(row: Mapping[str, Any]) -> Iterator[tuple[str | None, Any]]:
            if together:
                return _voices(row.get(together))
            return ((name, row.get(column)) for name, column in wide.items())

        return lambda number, row: _add_all(builder, names, number, row, find(row))
    if {"annotator", "label"} <= names.keys():
        keys = ["item"] if "item" in names else ["prompt", "response_a", "response_b"]
        if not set(keys[-2:]) <= names.keys():
            raise DataError(
                "labels need to say which item they are of: a column item, or response_a and "
                f"response_b; found: {', '.join(raw.columns[:20])}",
                raw.name,
                "name it with --columns item=NAME",
            )
        used = [names[key] for key in keys if key in names]
        return lambda _, row: _add_one(builder, names, used, row)
    if {"chosen", "rejected"} <= names.keys():
        builder.expect(FIRST_SECOND)
        ours = {our: column for our, column in columns.items() if our in _CHOICE}
        chosen = choose_columns("comparisons", raw.columns, ours, raw.name)
        return lambda _, row: builder.add_choice(_choice(row, chosen))
    raise DataError(
        "labels of several annotators need a column votes; or label_NAME columns; or annotator and "
        f"label; or chosen and rejected; found: {', '.join(raw.columns[:20])}",
        raw.name,
        "map them with --columns OURS=THEIRS",
    )


_CHOICE = ("prompt", "chosen", "rejected", "annotator")


def _choice(row: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    normalised = comparison({ours: row.get(theirs) for ours, theirs in chosen.items()})
    if normalised.get("annotator") == "":
        raise BadRowError("annotator is missing")
    return normalised


def _wide_columns(raw: RawRows, columns: Mapping[str, str]) -> dict[str, str]:
    """Return annotator -> column, where each has one of their own."""
    if "annotators" in columns:
        return {column: column for column in columns["annotators"].split(",")}
    return {
        column.removeprefix(prefix): column
        for column in raw.columns
        for prefix in _PREFIXES
        if column.startswith(prefix) and column != prefix
    }


def _add_one(
    builder: _Builder, names: Mapping[str, str], used: list[str], row: Mapping[str, Any]
) -> None:
    label, annotator = _named(row.get(names["label"])), _named(row.get(names["annotator"]))
    if annotator is None:
        raise BadRowError("annotator is missing")
    item = tuple(_named(row.get(column)) for column in used)
    if None in item:
        raise BadRowError(f"{used[item.index(None)]} is missing")
    if label is not None:
        prompt = _named(row.get(names["prompt"])) if "prompt" in names else None
        builder.add(item, item if prompt is None else prompt, annotator, label)


def _add_all(
    builder: _Builder,
    names: Mapping[str, str],
    number: int,
    row: Mapping[str, Any],
    voices: Iterable[tuple[str | None, Any]],
) -> None:
    item = _named(row.get(names["item"])) if "item" in names else number
    prompt = _named(row.get(names["prompt"])) if "prompt" in names else None
    for annotator, value in voices:
        label = _named(value)
        if label is not None:
            builder.add(item, item if prompt is None else prompt, annotator, label)


def _voices(cell: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield annotator and label of a cell that holds several; in CSV it is JSON.

    Raises:
        BadRowError: It holds something else.
    """
    value = cell
    if isinstance(cell, str) and cell.strip():
        try:
            value = json.loads(cell)
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
    """Return a cell as a name; None where it is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True)
    return str(value).strip() or None
