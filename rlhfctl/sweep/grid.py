"""The settings of a sweep: lists of values on the command line or in the recipe, and their grid."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

from rlhfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.recipe.sweep import SweepSection

Texts = dict[str, str]
"""Dotted recipe key -> its value, as `--set` takes it."""

_OPENING, _CLOSING = "[{(", "]})"
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:''|[^'])*'""")
_LONGEST_NAME = 64


def split_values(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes.

    A quote opens where a value may begin, so that an apostrophe within a word is one.

    Raises:
        UsageError: A value between two commas is empty.
    """
    parts, depth, before, at = [""], 0, ",", 0
    while at < len(text):
        quoted = _QUOTED.match(text, at) if before in ",:" + _OPENING else None
        piece = quoted[0] if quoted else text[at]
        at += len(piece)
        if piece == "," and depth == 0:
            parts.append("")
        else:
            depth = max(0, depth + (piece in _OPENING) - (piece in _CLOSING))
            parts[-1] += piece
        before = before if piece.isspace() else piece[-1]
    values = [part.strip() for part in parts]
    if len(values) > 1 and "" in values:
        raise UsageError(f"{text}: a value between two commas is empty", "--set")
    return values


def read_lists(settings: Sequence[str]) -> tuple[Texts, dict[str, list[str]]]:
    """Return what `--set` fixes for all points, and what it lists.

    Raises:
        UsageError: One is not ``key=value``, or a key that is listed is given twice.
    """
    fixed: Texts = {}
    lists: dict[str, list[str]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(
                f"--set {setting}: not of the form key=value",
                hint="for example --set ppo.beta=0,0.05,0.1",
            )
        values = split_values(text)
        if key in lists or (key in fixed and len(values) > 1):
            raise UsageError(f"{key} is given twice", "--set", "put all its values into one list")
        if len(values) > 1:
            lists[key] = values
        else:
            fixed[key] = text
    return fixed, lists


def merge(
    section: SweepSection, fixed: Mapping[str, str], lists: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[str]]:
    """Return the lists of a sweep: the recipe's, with those keys replaced that are given outside it.

    Args:
        section: The recipe's own.
        fixed: Keys with one value on the command line, which are swept no more.
        lists: Keys with several.

    Raises:
        UsageError: Nothing is left to sweep.
    """
    own = {key: [json.dumps(value) for value in values] for key, values in section.set.items()}
    merged = {key: values for key, values in {**own, **lists}.items() if key not in fixed}
    if not merged:
        raise UsageError(
            "nothing to sweep: no key has several values",
            hint="for example --set ppo.beta=0,0.05,0.1, or a section `sweep` in the recipe",
        )
    return merged


def combine(lists: Mapping[str, Sequence[str]], *, zipped: bool) -> list[Texts]:
    """Return the points: all combinations, the last key changing fastest, or one of each in turn.

    Raises:
        UsageError: Lists to be zipped differ in length.
    """
    lengths = {key: len(values) for key, values in lists.items()}
    if zipped and len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UsageError(f"lists to be paired must be of one length, but {shown}", "--zip")
    rows = zip(*lists.values(), strict=True) if zipped else itertools.product(*lists.values())
    return [dict(zip(lists, row, strict=True)) for row in rows]


def names(points: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a run's name for each point, such as `beta-0.02-seed-1`; each is the point's own.

    A name that would be too long, or that leaves out something of the values, ends in a digest of
    the settings, so that a point has the same name in a larger sweep.
    """
    last = Counter(key.rpartition(".")[2] for key in (points[0] if points else ()))
    return [_name(point, last) for point in points]


def _name(point: Mapping[str, str], last: Counter[str]) -> str:
    whole = "-".join(
        f"{key.rpartition('.')[2] if last[key.rpartition('.')[2]] == 1 else key}-{text}"
        for key, text in point.items()
    )
    name = re.sub(r"[^a-z0-9._-]+", "-", whole.lower().replace('"', "")).strip("-._")
    if name == whole and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(json.dumps(sorted(point.items())).encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9] or 'point'}-{digest}"
