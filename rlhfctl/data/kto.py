"""Prompts with one response and a label, in the form of KTO (Ethayarajh et al. 2024)."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rlhfctl.data.forms import ASKED, WEIGHT, compared
from rlhfctl.data.rows import BadRowError, LeftOutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rlhfctl.data.forms import Item, Kind, Source

_LABELS = {"true": True, "1": True, "false": False, "0": False, "-1": False}


def is_desirable(value: Any) -> bool | None:
    """Return KTO's label as a boolean; None if it is none."""
    return _LABELS.get(str(value).strip().removesuffix(".0").lower())


def has_labels(rows: Sequence[Source]) -> bool:
    """Return True if every `label` is one of KTO's."""
    return all(is_desirable(row.get("label")) is not None for row in rows)


def kto(rows: Iterable[tuple[int, Source]], kind: Kind, chat: bool) -> Iterator[tuple[int, Item]]:
    """Convert prompts with one response and its label, true for a desirable response.

    Desirable responses are demonstrations. Comparisons are all pairs of a desirable and an
    undesirable response to the same prompt, weighted like a ranking's.
    """
    del chat
    groups: dict[str, list[tuple[int, Source, bool]]] = defaultdict(list)
    for number, row in rows:
        label = is_desirable(row.get("label"))
        if label is None:
            yield number, BadRowError("label is not true or false")
        elif kind == "comparisons":
            asked = [row.get(name) for name in ("prompt", *ASKED)]
            key = json.dumps(asked, sort_keys=True, default=str)
            groups[key].append((number, row, label))
        elif kind == "demonstrations" and not label:
            yield number, LeftOutError("undesirable response (label false)")
        else:
            yield number, row
    for group in groups.values():
        if len({label for _, _, label in group}) < 2:
            for number, _, _ in group:
                yield number, LeftOutError("response without one of the other label to its prompt")
            continue
        good = [(number, row) for number, row, label in group if label]
        bad = [row for _, row, label in group if not label]
        weight = 1.0 / (len(good) * len(bad))
        for number, row in good:
            for other in bad:
                sides = row.get("completion"), other.get("completion")
                extras = {WEIGHT: weight} | {name: row[name] for name in ASKED if name in row}
                yield number, compared(row.get("prompt"), *sides, **extras)
