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
        label: What it is called.
        kl: Mean KL to the reference, nats per response.
        gain: Mean gain over SFT of the gold reward, or of what stands in for it.
        low: Of the gain's 95 % interval.
        high: Of the gain's 95 % interval.
        each: Gain at each held-out prompt, the seeds after one another; empty if unknown.
        prompts: Which prompts those were; only gains on the same ones are compared in pairs.
    """

    label: str
    kl: float
    gain: float
    low: float
    high: float
    each: Sequence[float] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """The number of the candidate to take, and why, in a sentence or two."""

    number: int
    why: str


def recommend(candidates: Sequence[Candidate], measure: str) -> Recommendation | None:
    """Return the setting to take; None without candidates.

    1. The best is the one of the highest mean gain.
    2. Another is as good if it is not significantly worse: the 95 % bootstrap interval of the
       difference, paired by prompt over all seeds, reaches 0. Where prompts are unknown or differ,
       the two intervals overlap.
    3. Of the best and all that are as good, the one of the smallest KL is taken: what gains as much
       with less change has fewer side effects.

    Args:
        candidates: All settings that are done.
        measure: What the gain is a gain in, for the sentence.
    """
    if not candidates:
        return None
    best = max(range(len(candidates)), key=lambda at: candidates[at].gain)
    equals = [
        at
        for at, candidate in enumerate(candidates)
        if at == best or as_good(candidate, candidates[best])
    ]
    taken = min(equals, key=lambda at: candidates[at].kl)
    return Recommendation(taken, _why(candidates, taken, best, measure))


def as_good(other: Candidate, best: Candidate) -> bool:
    """Whether a candidate is not significantly worse than the best."""
    if not _paired(other, best):
        return other.high >= best.low
    difference = np.asarray(best.each) - np.asarray(other.each)
    return paired_bootstrap_mean(difference, _BOOTSTRAP_SEED).low <= 0


def _paired(one: Candidate, other: Candidate) -> bool:
    return len(one.each) > 1 and len(one.each) == len(other.each) and one.prompts == other.prompts


def _why(candidates: Sequence[Candidate], taken: int, best: int, measure: str) -> str:
    chosen, top = candidates[taken], candidates[best]
    if taken == best:
        why = f"{chosen.label} has the highest gain in {measure}: {_gain(chosen)}"
        why += ", and no setting of less KL is as good" if len(candidates) > 1 else ""
    else:
        how = "paired by prompt" if _paired(chosen, top) else "their intervals overlap"
        why = (
            f"{chosen.label} has the smallest KL ({chosen.kl:.3g} nats per response) of the settings "
            f"whose gain in {measure} is not significantly below the highest ({how}): "
            f"{_gain(chosen)}; the highest is {_gain(top)}, of {top.label} at {top.kl:.3g} nats"
        )
    if chosen.low <= 0:
        why += "; but it is not significantly better than SFT"
    return f"{why}."


def _gain(candidate: Candidate) -> str:
    # What is 0 but for the rounding of a sum is shown as 0.
    gain, low, high = (
        f"{round(value, 12) + 0.0:.3g}" for value in (candidate.gain, candidate.low, candidate.high)
    )
    return f"{gain} (95 %: {low} to {high})"
