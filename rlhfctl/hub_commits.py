"""Commits of the Hub's repositories that this process has loaded.

A branch moves, so that the recipe's `revision` does not say what was read.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["model", "dataset"]

_loaded: dict[tuple[Kind, str, str | None], str] = {}


def note_loaded(kind: Kind, name: str, revision: str | None, commit: str | None) -> None:
    """Remember the commit that a revision of a repository was; None: it was no repository."""
    if commit:
        _loaded[kind, name, revision] = commit


def loaded_commit(kind: Kind, name: str, revision: str | None) -> str | None:
    """Return the commit that was loaded; None if this process has loaded no such repository."""
    return _loaded.get((kind, name, revision))
