"""Reward sources and the rule that combines several into one score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from rlhfctl.errors import DataError
from rlhfctl.maths.ensembles import Rule, combine_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences


class RewardSource(Protocol):
    """Source of one score per response: a reward model, a function or a server."""

    name: str

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return one score per episode, [B].

        Args:
            batch: B episodes.
            rows: Prompt index per episode.
        """


@runtime_checkable
class ConcurrentSource(RewardSource, Protocol):
    """Reward source that computes while the other sources do."""

    def start(self, batch: Sequences, rows: Sequence[int]) -> Callable[[], Tensor]:
        """Start the computation of `scores`; the returned function waits for them.

        They are NaN where the source does not apply to a response.
        """


@dataclass(frozen=True)
class Rewards:
    """Reward sources and the rule that combines their scores.

    Attributes:
        sources: Reward sources, at least one.
        weights: Weight per source, for `weighted_sum`.
        rule: Rule of `combine_scores`.
        penalty: Variance penalty of `combine_scores`, for `uncertainty`.
    """

    sources: Sequence[RewardSource]
    weights: Sequence[float]
    rule: Rule = "weighted_sum"
    penalty: float = 0.0

    def scores_per_source(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return the scores of every source, [S, B], on the batch's device; 0 where it gives none.

        Raises:
            DataError: No source scores some response, or one does not and the rule is no sum.
        """
        waiting = [
            source.start(batch, rows)
            if isinstance(source, ConcurrentSource)
            else partial(source.scores, batch, rows)
            for source in self.sources
        ]
        scores = torch.stack([wait().to(batch.ids.device, torch.float32) for wait in waiting])
        return self._without_absent(scores)

    def _without_absent(self, scores: Tensor) -> Tensor:
        """Return scores [S, B] with 0 in place of the NaN of sources that may leave responses out."""
        may_be_absent = [isinstance(source, ConcurrentSource) for source in self.sources]
        absent = scores.isnan() & torch.tensor(may_be_absent, device=scores.device)[:, None]
        if absent.any() and self.rule != "weighted_sum":
            raise DataError(
                f"a reward source returned None, which reward_rule: {self.rule} cannot combine",
                "ppo.reward_rule",
                "Use weighted_sum, where None adds nothing, or return a number.",
            )
        if absent.all(dim=0).any():
            raise DataError(
                "every reward source returned None for a response",
                "ppo.reward_sources",
                "Let one of them return a number for each response.",
            )
        return scores.masked_fill(absent, 0.0)

    def combine(self, source_scores: Tensor) -> Tensor:
        """Return one score per episode, [B], from [S, B]."""
        return combine_scores(source_scores, self.weights, self.rule, self.penalty)

    def metrics(self, source_scores: Tensor) -> dict[str, float]:
        """Return the mean score per source and their disagreement; empty for one source."""
        if len(self.sources) == 1:
            return {}
        means = {
            f"score_{source.name}": float(scores.mean())
            for source, scores in zip(self.sources, source_scores, strict=True)
        }
        disagreement = float(source_scores.std(dim=0, correction=1).mean())
        return means | {"score_disagreement": disagreement}
