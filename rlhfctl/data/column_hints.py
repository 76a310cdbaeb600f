"""Suggestions of how the columns of a source map to those of a form."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.data.forms import Form, Kind

_SYNONYMS = {
    "prompt": ("query", "question", "inputs", "input", "instruction", "problem", "context"),
    "completion": (
        *("response", "answer", "output", "targets", "target", "solution", "summary", "label"),
    ),
    "messages": ("conversation", "dialogue", "dialog", "turns", "chat", "context_messages"),
    "chosen": ("chosen_response", "preferred", "better", "accepted", "positive", "winner"),
    "rejected": ("rejected_response", "dispreferred", "worse", "negative", "loser"),
}
"""Our column -> what others call it, the most usual first."""


def mapping_hint(kind: Kind, forms: Sequence[Form], columns: Sequence[str]) -> str:
    """Return a line of the recipe that maps a source's columns to those of a form.

    Args:
        kind: Kind of data.
        forms: Forms whose columns the source lacks, in the order that they are tried.
        columns: Columns of the source.
    """
    for form in forms:
        mapping = {
            ours: _counterpart(ours, columns) for ours in form.columns if ours not in columns
        }
        pairs = [f"{ours}: {theirs}" for ours, theirs in mapping.items() if theirs]
        if len(pairs) == len(mapping):
            return f"for example data.{kind}.columns: {{{', '.join(pairs)}}}"
    return f"map them with data.{kind}.columns: {{our name: name in the source}}"


def _counterpart(ours: str, columns: Sequence[str]) -> str | None:
    """Return the column of a source that may be ours, by a usual name or a similar one."""
    folded = {name.strip().casefold(): name.strip() for name in reversed(columns)}
    usual = (folded[name] for name in _SYNONYMS.get(ours, ()) if name in folded)
    similar = difflib.get_close_matches(ours, columns, n=1)
    return next(usual, similar[0] if similar else None)
