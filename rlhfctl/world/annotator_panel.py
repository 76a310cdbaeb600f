"""A panel of simulated annotators: the gold reward with biases and noise.

Their pairwise agreement is close to that of InstructGPT's labellers: 72.6 % (Ouyang et al. 2022,
section 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from rlhfctl.world.gold import GoldFeatures, gold_features, reward_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

Pair = tuple[str, str, str]


@dataclass(frozen=True)
class Annotator:
    """A simulated annotator who compares responses by gold reward plus biases and noise.

    Attributes:
        name: Annotator name in the labels.
        per_word: Bias for length, in reward per word.
        for_certain: Bias for certainty, in reward.
        for_hedged: Bias for hedging, in reward; may be negative.
        for_flattery: Bias for flattery, in reward.
        for_polite: Bias for politeness, in reward.
        temperature: Noise of a comparison, in units of reward.
        lapse: Share of labels that are uniformly random.
    """

    name: str
    per_word: float = 0.0
    for_certain: float = 0.0
    for_hedged: float = 0.0
    for_flattery: float = 0.0
    for_polite: float = 0.0
    temperature: float = 1.0
    lapse: float = 0.0

    def utility(self, features: GoldFeatures) -> float:
        """Biased value of a response, in units of the gold reward."""
        return (
            reward_of(features)
            + self.per_word * features.words
            + self.for_certain * features.certain
            + self.for_hedged * features.hedged
            + self.for_flattery * features.flattering
            + self.for_polite * features.polite
        )

    def preference(self, first: GoldFeatures, second: GoldFeatures) -> float:
        """Probability of choosing the first of two responses.

        Bradley-Terry with lapses: l / 2 + (1 - l) sigmoid((u_first - u_second) / temperature).
        """
        margin = (self.utility(first) - self.utility(second)) / self.temperature
        return 0.5 * self.lapse + (1.0 - self.lapse) / (1.0 + math.exp(-margin))


PANEL = (
    Annotator("ada", temperature=0.85, lapse=0.05),
    Annotator("bruno", per_word=0.02, temperature=0.85, lapse=0.05),
    Annotator("chloe", for_certain=0.5, temperature=0.85, lapse=0.05),
    Annotator("david", for_flattery=0.5, for_polite=0.2, temperature=0.85, lapse=0.05),
    Annotator("elena", for_hedged=-0.5, temperature=0.85, lapse=0.05),
    Annotator("felix", per_word=-0.02, for_hedged=0.3, temperature=0.85, lapse=0.05),
)


def chosen_first(annotator: Annotator, pair: Pair, rng: Random) -> bool:
    """Sample whether the annotator prefers the first response of `(prompt, first, second)`."""
    prompt, first, second = pair
    chance = annotator.preference(gold_features(prompt, first), gold_features(prompt, second))
    return rng.random() < chance


def pairwise_agreement(
    pairs: Sequence[Pair], panel: Sequence[Annotator] = PANEL
) -> dict[tuple[str, str], float]:
    """Probability of the same label, for each pair of annotators in the panel.

    Exact given the response pairs: the mean of p q + (1 - p)(1 - q).

    Raises:
        ValueError: `pairs` is empty.
    """
    if not pairs:
        raise ValueError("agreement needs at least one pair of responses")
    chances = preferences(pairs, panel)
    return {
        (one.name, other.name): sum(
            p * q + (1.0 - p) * (1.0 - q)
            for p, q in zip(chances[one.name], chances[other.name], strict=True)
        )
        / len(pairs)
        for one, other in combinations(panel, 2)
    }


def preferences(
    pairs: Sequence[Pair], panel: Sequence[Annotator] = PANEL
) -> dict[str, list[float]]:
    """Probability of choosing the first response, by annotator and pair."""
    features = [(gold_features(prompt, a), gold_features(prompt, b)) for prompt, a, b in pairs]
    return {one.name: [one.preference(a, b) for a, b in features] for one in panel}
