"""Who looks at the policy between rollouts: what the trainer asks, and what it hears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class HeldOutEvaluation:
    """What was found of the policy as it stands.

    Attributes:
        metrics: For the log, beside the rollout's own.
        stop: Whether training should end here.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    stop: bool = False


class HeldOutEvaluator(Protocol):
    """Judges the policy on held-out prompts; all processes look together."""

    def look(self, rollout: int, episodes: int) -> HeldOutEvaluation:
        """Judge the policy after `rollout` rollouts of `episodes` episodes in all."""

    def resume_from(self, rollout: int) -> None:
        """Forget every look later than `rollout` rollouts, for training goes on from there."""
