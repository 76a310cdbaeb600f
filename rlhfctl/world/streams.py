"""Random number streams by name and seed, identical on every machine."""

from __future__ import annotations

from random import Random


def stream(name: str, seed: int = 0) -> Random:
    """Independent stream for a name and seed; text seeds do not depend on PYTHONHASHSEED."""
    return Random(f"{name}/{seed}")  # noqa: S311 - not for cryptography
