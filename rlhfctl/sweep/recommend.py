"""Recommended sweep setting: the lowest KL among those as good as the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.evaluation.intervals import paired_bootstrap_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Candidate:
    """One setting.

    Attributes:
        label: Settings, as shown to the user.
        kl: Mean KL to the reference, nats per response.
        gain: Mean gain over SFT in the true reward.
        low: Lower end of the gain's 95 % CI.
        high: Upper end of the gain's 95 % CI.
        prompt_gains: Gain per held-out prompt, seeds concatenated; empty if unavailable.
        prompts: Seed and digest of the prompts per run; only gains on equal prompts are paired.
    """

    label: str
    kl: float
    gain: float
    low: float
    high: float
    prompt_gains: Sequence[float] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """Index of the recommended candidate, and the reason in a sentence."""

    number: int
    why: str


def recommend(candidates: Sequence[Candidate], measure: str) -> Recommendation | None:
    """Return the recommended setting; None without candidates.

    1. The best candidate has the highest mean gain.
    2. Another is as good if it is not significantly worse: the 95 % bootstrap CI of the
       difference, paired by prompt over all seeds, includes 0. If prompts are unavailable or
       differ, the two CIs must overlap instead.
    3. Among the best and those as good, the candidate with the lowest KL is recommended: an equal
       gain at a lower KL has fewer side effects.

    Args:
        candidates: All finished settings.
        measure: Name of the reward, for the sentence.
    """
    if not candidates:
        return None
    best = max(range(len(candidates)), key=lambda index: candidates[index].gain)
    equals = [
        index
        for index, candidate in enumerate(candidates)
        if index == best or as_good(candidate, candidates[best])
    ]
    taken = min(equals, key=lambda index: candidates[index].kl)
    return Recommendation(taken, _why(candidates, taken, best, measure))


def as_good(other: Candidate, best: Candidate) -> bool:
    """Return whether a candidate is not significantly worse than the best."""
    if not _paired(other, best):
        return other.high >= best.low
    difference = np.asarray(best.prompt_gains) - np.asarray(other.prompt_gains)
    return paired_bootstrap_mean(difference, _BOOTSTRAP_SEED).low <= 0


def _paired(one: Candidate, other: Candidate) -> bool:
    lengths = {len(one.prompt_gains), len(other.prompt_gains)}
    return len(lengths) == 1 and min(lengths) > 1 and one.prompts == other.prompts


def _why(candidates: Sequence[Candidate], taken: int, best: int, measure: str) -> str:
    chosen, top = candidates[taken], candidates[best]
    if taken == best:
        why = f"{chosen.label} has the highest gain in {measure}: {_gain(chosen)}"
        why += ", and no setting with a lower KL is as good" if len(candidates) > 1 else ""
    else:
        how = "paired by prompt" if _paired(chosen, top) else "their CIs overlap"
        why = (
            f"{chosen.label} has the lowest KL ({chosen.kl:.3g} nats per response) of the settings "
            f"whose gain in {measure} is not significantly below the highest ({how}): "
            f"{_gain(chosen)}; the highest is {_gain(top)}, with {top.label} at {top.kl:.3g} nats"
        )
    if chosen.low <= 0:
        why += "; but it is not significantly better than SFT"
    return f"{why}."


def _gain(candidate: Candidate) -> str:
    # A sum that differs from 0 only by rounding is shown as 0.
    gain, low, high = (
        f"{round(value, 12) + 0.0:.3g}" for value in (candidate.gain, candidate.low, candidate.high)
    )
    return f"{gain} (95 % CI {low} to {high})"
