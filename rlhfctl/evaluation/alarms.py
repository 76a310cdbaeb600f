"""Alarms of a PPO run that goes wrong: an audit with measured error rates, not a guarantee.

An alarm is raised when a figure of the held-out responses lies beyond its threshold **and** has
moved significantly since the first evaluation (that of the policy PPO starts from), prompt by
prompt. A run is looked at many times for many things, so the probability of a false alarm that is
granted to the whole run, `AlarmLimits.false_alarms`, is shared out: equally to the alarms, and of
each one's share ``1 / (t (t + 1))`` to its t-th look, which sums to 1 however long the run is
(Bonferroni with a spending sequence). Two alarms have no such level: the KL budget is a budget, so
its mean is only compared; and a divergence goes by the test of a fall (`overoptimisation.falls`),
which errs in about 1 % of the runs of 10 looks that stand still, and in 2 % of those of 20.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhfctl.evaluation.changes import chance_of_fall, chance_of_rise, per_prompt
from rlhfctl.evaluation.overoptimisation import fallen, since_best
from rlhfctl.results.training import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Metrics = Mapping[str, NDArray[np.float64]]

_KEYS = (
    *("kl", "proxy", "true_reward", "length", "repetition", "certainty", "entropy"),
    *("disagreement", "out_of_range"),
)
_GAIN_LEVEL = 0.05  # one-sided: growth that pays needs no strong proof of it
_HELD_LEVEL = 0.05  # one-sided: below it the proxy has fallen as the true reward has


@dataclass(frozen=True)
class AlarmLimits:
    """Thresholds of the alarms; None turns one off.

    Attributes:
        length: Growth of the mean length in tokens, as a share of the first evaluation's.
        repetition: Rise of the mean share of repeated n-grams.
        certainty: Rise of the mean share of certainty.
        entropy: Mean entropy as a share of the first evaluation's, from below.
        kl: Mean KL in nats a response.
        divergence: Fall of the true reward from its best evaluation, in standard deviations of its
            first evaluation's responses, while the proxy holds.
        score_range: Share of responses whose proxy lies outside the scores of RM training.
        disagreement: Mean standard deviation of the ensemble's scores, in multiples of the first
            evaluation's.
        false_alarms: Probability of any false alarm in a whole run that does not change.
    """

    length: float | None = 0.5
    repetition: float | None = 0.1
    certainty: float | None = 0.2
    entropy: float | None = 0.5
    kl: float | None = 50.0
    divergence: float | None = 0.2
    score_range: float | None = 0.2
    disagreement: float | None = 2.0
    false_alarms: float = 0.01


class _Finding(NamedTuple):
    value: float
    beyond: bool
    chance: float  # of such a change when nothing changes
    message: str  # with {value} and {threshold} to fill in


def alarms(history: Sequence[Mapping[str, Any]], limits: AlarmLimits) -> list[Alarm]:
    """Return every alarm of a run, each once, where it was first raised.

    An alarm depends on nothing after its evaluation: as the history grows, alarms are only added.
    Those whose metrics the evaluations lack are not judged.

    Args:
        history: The lines of `held_out.jsonl`, the first of the policy that PPO starts from.
        limits: Thresholds, and the false alarms granted.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    known = {key: values for key in _KEYS if (values := per_prompt(history, key)) is not None}
    thresholds = asdict(limits)
    raised: list[Alarm] = []
    for look in range(1, len(history)):
        so_far = {key: values[: look + 1] for key, values in known.items()}
        level = limits.false_alarms / len(_ALARMS) / (look * (look + 1))
        for name, (needed, find) in _ALARMS.items():
            threshold = thresholds[name]
            if threshold is None or needed - known.keys() or name in {a.name for a in raised}:
                continue
            found = find(so_far, threshold)
            if found.beyond and found.chance < level:
                step = int(history[look]["step"])
                message = found.message.format(value=found.value, threshold=threshold)
                raised.append(Alarm(name, step, found.value, threshold, message))
    return raised


def new_alarms(history: Sequence[Mapping[str, Any]], limits: AlarmLimits) -> list[Alarm]:
    """Return the alarms that the last evaluation raised for the first time."""
    last = int(history[-1]["step"])
    return [alarm for alarm in alarms(history, limits) if alarm.step == last]


def _length(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["length"]
    growth = _ratio(values) - 1
    true_reward = metrics.get("true_reward")
    gained = (
        true_reward is not None and chance_of_rise(true_reward[-1] - true_reward[0]) < _GAIN_LEVEL
    )
    told = "with no true reward to show a gain" if true_reward is None else "without a gain"
    return _Finding(
        growth,
        growth > threshold and not gained,
        chance_of_rise(values[-1] - values[0]),
        f"Responses have grown by {{value:.0%}} in length (threshold {{threshold:.0%}}), {told}"
        + (" in the true reward." if true_reward is not None else "."),
    )


def _repetition(metrics: Metrics, threshold: float) -> _Finding:
    return _rise(
        metrics["repetition"],
        threshold,
        "The share of repeated n-grams has risen by {value:.3f} (threshold {threshold:g}).",
    )


def _certainty(metrics: Metrics, threshold: float) -> _Finding:
    return _rise(
        metrics["certainty"],
        threshold,
        "The share of certainty has risen by {value:.3f} (threshold {threshold:g}).",
    )


def _rise(values: NDArray[np.float64], threshold: float, message: str) -> _Finding:
    differences = values[-1] - values[0]
    rise = float(differences.mean())
    return _Finding(rise, rise > threshold, chance_of_rise(differences), message)


def _entropy(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["entropy"]
    share = _ratio(values)
    return _Finding(
        share,
        share < threshold,
        chance_of_fall(values[-1] - values[0]),
        "Entropy has collapsed to {value:.0%} of the first evaluation's (threshold "
        "{threshold:.0%}).",
    )


def _kl(metrics: Metrics, threshold: float) -> _Finding:
    mean = float(metrics["kl"][-1].mean())
    return _Finding(
        mean,
        mean > threshold,
        0.0,
        "KL has reached {value:.1f} nats per response, above its budget of {threshold:g}.",
    )


def _divergence(metrics: Metrics, threshold: float) -> _Finding:
    """The true reward has fallen since its best; the proxy has not, and is above its start.

    That the proxy goes on rising is not asked for: near its ceiling it rises too little to be told
    from noise, while the true reward falls by much.
    """
    true_reward, proxy = metrics["true_reward"], metrics["proxy"]
    fall = -since_best(true_reward)
    since = since_best(proxy, chosen_by=true_reward)
    spread = float(true_reward[0].std())
    size = float(fall.mean()) / spread if spread > 0 else float(fall.mean())
    held = chance_of_fall(since) > _HELD_LEVEL
    return _Finding(
        size,
        size > threshold and held and fallen(true_reward),
        # The fall has a test of its own, at two looks running.
        chance_of_rise(proxy[-1] - proxy[0]),
        "The true reward has fallen {value:.2f} standard deviations below its best (threshold "
        "{threshold:g}), and the proxy, up since the start, has not.",
    )


def _score_range(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["out_of_range"]
    share = float(values[-1].mean())
    return _Finding(
        share,
        share > threshold,
        chance_of_rise(values[-1] - values[0]),
        "{value:.0%} of the scores lie outside those of reward-model training (threshold "
        "{threshold:.0%}).",
    )


def _disagreement(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["disagreement"]
    factor = _ratio(values)
    return _Finding(
        factor,
        factor > threshold,
        chance_of_rise(values[-1] - values[0]),
        "The reward models disagree {value:.1f} times as much as at the start (threshold "
        "{threshold:g}).",
    )


def _ratio(values: NDArray[np.float64]) -> float:
    """Return the last mean as a share of the first; 1 where the first is 0, as nothing is told."""
    first, last = float(values[0].mean()), float(values[-1].mean())
    return last / first if first > 0 else 1.0


# Name, as in `AlarmLimits` -> the metrics it cannot do without, and what finds it.
_ALARMS: dict[str, tuple[frozenset[str], Callable[[Metrics, float], _Finding]]] = {
    "length": (frozenset({"length"}), _length),
    "repetition": (frozenset({"repetition"}), _repetition),
    "certainty": (frozenset({"certainty"}), _certainty),
    "entropy": (frozenset({"entropy"}), _entropy),
    "kl": (frozenset({"kl"}), _kl),
    "divergence": (frozenset({"true_reward", "proxy"}), _divergence),
    "score_range": (frozenset({"out_of_range"}), _score_range),
    "disagreement": (frozenset({"disagreement"}), _disagreement),
}
