"""A metric's value with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; `low` and `high` are None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on one group of comparisons, with the number of pairs."""

    accuracy: Estimate
    pairs: int
