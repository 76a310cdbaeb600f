"""Per-response measurements of held-out evaluations that need token ids or single sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file

from rlhfctl.evaluation.alarms import CONTRIBUTION
from rlhfctl.evaluation.latent_distance import held_out_distances
from rlhfctl.run.directory import SFT_STATES_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.rewards import Rewards

_STATES = "states"


class ObservedScores:
    """Collects, batch by batch, states of the reward model and contributions of the sources.

    Attributes:
        states: [responses so far][H] states that the score head reads; empty without a model.
        contributions: Metric -> [responses so far] weighted score of a source; empty for one source.
    """

    def __init__(self, roles: Roles, rewards: Rewards, *, with_states: bool) -> None:
        """Store the models.

        Args:
            roles: Holds the reward model.
            rewards: Sources and their weights.
            with_states: Whether the first reward model's states are wanted.
        """
        self.roles = roles
        self.rewards = rewards
        self.with_states = with_states
        self.states: list[list[float]] = []
        self.contributions: dict[str, list[float]] = {}

    def __call__(self, batch: Sequences, source_scores: Tensor) -> None:
        """Add a batch with its scores [sources, batch]."""
        if self.with_states:
            self.states += self.roles.score_states(batch).float().tolist()
        if len(source_scores) < 2:
            return
        weights = self.rewards.weights if self.rewards.rule == "weighted_sum" else None
        for number, source in enumerate(self.rewards.sources):
            weight = 1.0 / len(source_scores) if weights is None else weights[number]
            values = (weight * source_scores[number]).tolist()
            self.contributions.setdefault(f"{CONTRIBUTION}{source.name}", []).extend(values)


class StateReference:
    """States of SFT's responses to the held-out prompts, kept for a resumed run."""

    def __init__(self, output: Path) -> None:
        """Store the folder of the stage."""
        self.path = output / SFT_STATES_FILE
        self._reference: NDArray[np.float64] | None = None

    def distances(self, states: list[list[float]], *, first: bool, write: bool) -> list[float]:
        """Return the distance of each response's state to those of SFT, [prompts].

        Args:
            states: [prompts][H].
            first: True at the evaluation of SFT's policy, whose states become the reference.
            write: True in the process that writes files.
        """
        values: NDArray[np.float64] = np.asarray(states, np.float64)
        if first:
            self._reference = values
            if write:
                save_file({_STATES: values.astype(np.float32)}, self.path)
        if self._reference is None:
            self._reference = load_file(self.path)[_STATES].astype(np.float64)
        distances: list[float] = held_out_distances(self._reference, values).tolist()
        return distances
