"""Where scores come from: reward models, callables, servers; one, or several by a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from rlhfctl.maths.ensembles import Rule, combine_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences


class RewardSource(Protocol):
    """A giver of scores."""

    name: str

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return a score for each episode, [B].

        Args:
            batch: B episodes.
            rows: Which prompt of the data each of them answers.
        """


@dataclass(frozen=True)
class Rewards:
    """Sources and the rule that makes one score of theirs.

    Attributes:
        sources: At least one.
        weights: One a source.
        rule: As in `combine_scores`.
        penalty: As there.
    """

    sources: Sequence[RewardSource]
    weights: Sequence[float]
    rule: Rule = "weighted_sum"
    penalty: float = 0.0

    def each(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return every source's scores, [S, B], on the batch's device."""
        found = [source.scores(batch, rows) for source in self.sources]
        return torch.stack([scores.to(batch.ids.device, torch.float32) for scores in found])

    def combine(self, each: Tensor) -> Tensor:
        """Return one score an episode, [B], from [S, B]."""
        return combine_scores(each, self.weights, self.rule, self.penalty)

    def metrics(self, each: Tensor) -> dict[str, float]:
        """Return each source's mean score and how far they differ, where there are several."""
        if len(self.sources) == 1:
            return {}
        means = {
            f"score_{source.name}": float(scores.mean())
            for source, scores in zip(self.sources, each, strict=True)
        }
        return means | {"score_disagreement": float(each.std(dim=0, correction=1).mean())}
