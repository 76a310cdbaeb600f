"""Metrics of SFT's and PPO's responses to the same held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlhfctl.errors import DataError, DivergedError
from rlhfctl.evaluation.intervals import mean_estimate
from rlhfctl.evaluation.preferences import win_rate
from rlhfctl.evaluation.text import distinct_ngram_share, repeated_ngram_share, words
from rlhfctl.results.evaluation import Comparison, PolicyMetrics
from rlhfctl.results.samples import EvaluationSample, SampleScores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Responses:
    """One policy's responses, one per prompt, with their measurements.

    Attributes:
        texts: [prompts] the responses, without special tokens.
        kl: [prompts] KL to the reference in nats per response: the sum over its tokens of
            log pi(y_t) - log pi_ref(y_t) (k1).
        lengths: [prompts] tokens per response, including the stop token.
        ended: [prompts] whether the response ended with a stop token.
        proxy: [prompts] the reward model's normalised scores; None without a reward model.
        objective_score: [prompts] the same by the rules of PPO's objective: clipped, and replaced
            where the response did not end; None where PPO normalises by running statistics.
        gold: [prompts] gold rewards; None where the true reward is unknown.
        entropy: [prompts] mean over a response's tokens of the policy's entropy, in nats.
        disagreement: [prompts] standard deviation of several sources' scores.
        held_out_rm: [prompts] normalised scores of the held-out reward model.
    """

    texts: Sequence[str]
    kl: ArrayLike
    lengths: ArrayLike
    ended: ArrayLike
    proxy: ArrayLike | None = None
    objective_score: ArrayLike | None = None
    gold: ArrayLike | None = None
    entropy: ArrayLike | None = None
    disagreement: ArrayLike | None = None
    held_out_rm: ArrayLike | None = None


def compare_policies(
    policies: Mapping[str, Responses], ngram: int, seed: int
) -> tuple[dict[str, PolicyMetrics], Comparison | None]:
    """Return the metrics of each policy and, where both were evaluated, PPO's against SFT's.

    Intervals cover 95 %: Wilson's for win rates, a bootstrap over prompts for means and gains,
    which have no interval when there is only one prompt.

    Args:
        policies: `sft`, `ppo` or both; all on the same prompts in the same order.
        ngram: Length of the n-grams whose repetition is counted.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If there are no prompts.
        DivergedError: If a measurement is not finite.
        ValueError: If measurements differ in length.
    """
    measured = {name: _checked(name, responses) for name, responses in policies.items()}
    counts = {len(responses.texts) for responses in policies.values()}
    if len(counts) != 1:
        raise ValueError(f"policies must answer the same prompts, not {sorted(counts)} of them")
    (prompts,) = counts
    if not prompts:
        raise DataError(
            "no held-out prompt is left to evaluate on",
            hint="Raise data.prompts.held_out or the number of rows.",
        )
    metrics = {
        name: _policy_metrics(policies[name].texts, measured[name], ngram, seed)
        for name in policies
    }
    if "sft" in measured and "ppo" in measured:
        return metrics, _comparison(measured["sft"], measured["ppo"], seed)
    return metrics, None


def samples(
    prompts: Sequence[str], policies: Mapping[str, Responses], limit: int
) -> list[EvaluationSample]:
    """Return the first `limit` prompts with every policy's response and its scores."""
    return [
        EvaluationSample(
            prompt,
            {name: responses.texts[index] for name, responses in policies.items()},
            {name: _scores(responses, index) for name, responses in policies.items()},
        )
        for index, prompt in enumerate(prompts[:limit])
    ]


def _scores(responses: Responses, index: int) -> SampleScores:
    def at_index(values: ArrayLike | None) -> float | None:
        return None if values is None else float(np.asarray(values)[index])

    return SampleScores(at_index(responses.proxy), at_index(responses.gold), at_index(responses.kl))


_Measured = dict[str, "np.ndarray[Any, np.dtype[np.float64]]"]


def _checked(policy: str, responses: Responses) -> _Measured:
    """Return every available measurement as a finite [prompts] vector of doubles."""
    measurements = {
        "kl": responses.kl,
        "length": responses.lengths,
        "eos_share": responses.ended,
        "proxy": responses.proxy,
        "objective_score": responses.objective_score,
        "gold": responses.gold,
    }
    measured: _Measured = {}
    for name, values in measurements.items():
        if values is None:
            continue
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (len(responses.texts),):
            raise ValueError(
                f"{policy}: {name} must have one value per response, "
                f"{len(responses.texts)} in all, not shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise DivergedError(
                f"{policy}: {name} of {int((~np.isfinite(array)).sum())} responses is not a "
                "finite number",
                hint="The model has diverged; see its curves in the report.",
            )
        measured[name] = array
    return measured


def _policy_metrics(
    texts: Sequence[str], measured: _Measured, ngram: int, seed: int
) -> PolicyMetrics:
    split = [words(text) for text in texts]
    scores = {
        name: mean_estimate(measured[name], seed)
        for name in ("proxy", "objective_score", "gold")
        if name in measured
    }
    return PolicyMetrics(
        length=float(measured["length"].mean()),
        eos_share=float(measured["eos_share"].mean()),
        repetition=float(np.mean([repeated_ngram_share(text, ngram) for text in split])),
        distinct=distinct_ngram_share(split, ngram),
        kl=mean_estimate(measured["kl"], seed),
        **scores,
    )


def _comparison(sft: _Measured, ppo: _Measured, seed: int) -> Comparison:
    """Return win rates and gains for each score that both policies have."""
    names = ("proxy", "objective_score", "gold")
    scores = [name for name in names if name in sft and name in ppo]
    rates = {name: win_rate(ppo[name], sft[name]) for name in scores}
    gains = {name: mean_estimate(ppo[name] - sft[name], seed) for name in scores}
    judge: Literal["proxy", "gold"] | None = None
    if scores:
        judge = "gold" if "gold" in scores else "proxy"
    return Comparison(
        win_rate=rates[judge] if judge else None,
        judge=judge,
        proxy_win_rate=rates.get("proxy"),
        proxy_gain=gains.get("proxy"),
        objective_score_win_rate=rates.get("objective_score"),
        objective_score_gain=gains.get("objective_score"),
        gold_win_rate=rates.get("gold"),
        gold_gain=gains.get("gold"),
    )
