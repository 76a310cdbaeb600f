"""Verdict on a peak: whether a device's memory holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlhfctl.plan.target import Target

Verdict = Literal["fits", "tight", "no"]
_TIGHT = {"cuda": 0.9, "cpu": 0.65}
"""Share of the usable memory from which a stage is tight. Allocators lose memory to fragments: on a
CPU glibc keeps freed blocks, and the resident peak was up to 1.6 times that of live tensors."""


def roomy(target: Target) -> int:
    """Return the largest peak that fits."""
    return int(_TIGHT[target.kind] * target.usable)


def verdict(peak: int, target: Target) -> Verdict:
    """Return whether a peak of live tensors fits."""
    if peak <= roomy(target):
        return "fits"
    return "tight" if peak <= target.usable else "no"
