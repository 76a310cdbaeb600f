"""Who looks at the policy between rollouts: what the trainer asks, and what it hears."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Look:
    """What was found of the policy as it stands.

    Attributes:
        figures: For the log, beside the rollout's own.
        stop: Whether training should end here.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    stop: bool = False


class Watch(Protocol):
    """Judges the policy on held-out prompts; all processes look together."""

    def look(self, rollout: int, episodes: int) -> Look:
        """Judge the policy after `rollout` rollouts of `episodes` episodes in all."""

    def go_on_from(self, rollout: int) -> None:
        """Forget every look later than `rollout` rollouts, for training goes on from there."""
