"""A metric's value with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; `low` and `high` are None where there is no interval.

    In JSON a field NAME of this type is flat: `NAME`, `NAME_low`, `NAME_high`.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class GroupAccuracy:
    """Accuracy on one group of comparisons, with the number of pairs."""

    accuracy: Estimate = field(metadata={"bounds": ("low", "high")})
    pairs: int
