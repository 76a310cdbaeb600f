"""Sweep settings: lists of values from the command line or the recipe, and their grid."""

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

    A quote opens only at the start of a value, so an apostrophe within a word is literal.

    Raises:
        UsageError: A value between two commas is empty.
    """
    parts, depth, before, position = [""], 0, ",", 0
    while position < len(text):
        quoted = _QUOTED.match(text, position) if before in ",:" + _OPENING else None
        piece = quoted[0] if quoted else text[position]
        position += len(piece)
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
    """Return the fixed values and the lists of values of `--set`.

    Raises:
        UsageError: One is not ``key=value``, or a listed key is repeated.
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
    """Return the lists of a sweep: the recipe's, overridden by the command line.

    Args:
        section: The recipe's sweep section.
        fixed: Keys with one value on the command line; they are not swept.
        lists: Keys with several values on the command line.

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
    """Return the points: all combinations, last key fastest, or the lists zipped.

    Raises:
        UsageError: Lists to be zipped differ in length.
    """
    lengths = {key: len(values) for key, values in lists.items()}
    if zipped and len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UsageError(f"lists to be paired must have equal lengths, but {shown}", "--zip")
    rows = zip(*lists.values(), strict=True) if zipped else itertools.product(*lists.values())
    return [dict(zip(lists, row, strict=True)) for row in rows]


def names(points: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a unique run name per point, such as `beta-0.02-seed-1`.

    A name that is too long or omits part of the values ends in a digest of the settings. A point
    has the same name in a larger sweep.
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
