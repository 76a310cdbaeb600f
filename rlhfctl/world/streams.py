"""Streams of random numbers that are the same on every machine for the same name and seed."""

from __future__ import annotations

from random import Random


def stream(name: str, seed: int = 0) -> Random:
    """A stream of its own for each name and seed; text seeds do not depend on PYTHONHASHSEED."""
    return Random(f"{name}/{seed}")  # noqa: S311 - nothing here is secret
