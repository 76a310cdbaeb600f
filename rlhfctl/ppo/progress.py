"""What changes from rollout to rollout besides weights and optimisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhfctl.maths.statistics import RunningMoments


@dataclass
class Progress:
    """Where training stands between two rollouts.

    Attributes:
        rollout: How many are done.
        beta: The KL coefficient of the next one.
        moments: Of all scores so far.
        place: How many prompts were taken.
        ptx_place: How many demonstrations were taken.
        skipped: Minibatches that were not applied.
        early_stops: Rollouts whose epochs the KL limit ended.
    """

    rollout: int
    beta: float
    moments: RunningMoments
    place: int = 0
    ptx_place: int = 0
    skipped: int = 0
    early_stops: int = 0
