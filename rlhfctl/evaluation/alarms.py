"""Alarms for PPO runs that degrade, with measured false-alarm rates.

An alarm is raised when a held-out metric lies beyond its threshold **and** has changed
significantly, paired by prompt, since the first evaluation (of PPO's initial policy). A run is
tested repeatedly for several alarms. The false-alarm probability of a whole run,
`AlarmLimits.false_alarms`, is divided equally among the alarms. Each alarm spends ``1 / (t (t + 1))``
of its share at evaluation t, which sums to 1 for any run length (Bonferroni with alpha spending).
Two alarms have no such level. The mean KL is only compared with its budget. A divergence uses
`overoptimisation.falls`, whose false-positive rate on unchanging runs is about 1 % over
10 evaluations and 2 % over 20.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlhfctl.evaluation.changes import p_value_of_fall, p_value_of_rise, per_prompt
from rlhfctl.evaluation.overoptimisation import fallen, since_best
from rlhfctl.results.training import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from rlhfctl.results.training import HeldOutLine

    Metrics = Mapping[str, NDArray[np.float64]]

_KEYS = (
    *("kl", "proxy", "true_reward", "length", "repetition", "certainty", "entropy"),
    *("disagreement", "out_of_range", "state_distance", "saturated"),
)
CONTRIBUTION = "contribution_"
"""Prefix of the metric of a source's weighted score."""
_GAIN_LEVEL = 0.05  # one-sided; a loose level suffices to excuse growth that raises the true reward
_HELD_LEVEL = 0.05  # one-sided: below it the proxy has fallen too


@dataclass(frozen=True)
class AlarmLimits:
    """Alarm thresholds; None disables an alarm.

    Attributes:
        length: Growth of the mean length in tokens, as a share of the first evaluation's.
        repetition: Rise of the mean share of repeated n-grams.
        certainty: Rise of the mean share of certainty.
        entropy: Mean entropy as a share of the first evaluation's; lower values raise the alarm.
        kl: Mean KL in nats per response.
        divergence: Fall of the true reward from its best evaluation, in standard deviations of its
            first evaluation's responses, while the proxy does not fall.
        score_range: Share of responses whose proxy score lies outside the range seen in RM training.
        disagreement: Mean standard deviation of the ensemble's scores, in multiples of the first
            evaluation's.
        state_distance: Mean Mahalanobis distance of the reward model's states to those of SFT's
            responses to other prompts, in multiples of the first evaluation's.
        saturation: Rise of the share of scores at the clip.
        takeover: Fall of the other sources' summed weighted score, as a share of the rise of one
            source's.
        false_alarms: Probability of any false alarm over a whole run without change.
    """

    length: float | None = 0.5
    repetition: float | None = 0.1
    certainty: float | None = 0.2
    entropy: float | None = 0.5
    kl: float | None = 50.0
    divergence: float | None = 0.2
    score_range: float | None = 0.2
    disagreement: float | None = 2.0
    state_distance: float | None = 1.5
    saturation: float | None = 0.2
    takeover: float | None = 0.1
    false_alarms: float = 0.01


class _Finding(NamedTuple):
    value: float
    beyond: bool
    p_value: float
    message: str  # template with {value} and {threshold}


def alarms(history: Sequence[HeldOutLine], limits: AlarmLimits) -> list[Alarm]:
    """Return a run's alarms, each at the evaluation that first raised it.

    An alarm does not depend on later evaluations, so a longer history only adds alarms. Alarms
    whose metrics are missing are skipped.

    Args:
        history: Lines of `held_out.jsonl`, starting with PPO's initial policy.
        limits: Thresholds and the false-alarm probability.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    metrics = _metrics(history)
    raised: dict[str, Alarm] = {}
    for index in range(1, len(history)):
        for alarm in _alarms_at(index, metrics, history[index].step, limits):
            raised.setdefault(alarm.name, alarm)
    return list(raised.values())


def active_alarms(history: Sequence[HeldOutLine], limits: AlarmLimits) -> list[Alarm]:
    """Return the alarms whose condition holds at the last evaluation, raised before or not.

    Args:
        history: As in `alarms`.
        limits: As in `alarms`.

    Raises:
        ValueError: If the evaluations differ in their number of prompts.
    """
    last = len(history) - 1
    return list(_alarms_at(last, _metrics(history), history[last].step, limits)) if last > 0 else []


def _metrics(history: Sequence[HeldOutLine]) -> Metrics:
    names = history[0].per_prompt if history else ()
    sources = (name for name in names if name.startswith(CONTRIBUTION))
    return {
        key: values
        for key in (*_KEYS, *sources)
        if (values := per_prompt(history, key)) is not None
    }


def _alarms_at(index: int, metrics: Metrics, step: int, limits: AlarmLimits) -> Iterator[Alarm]:
    """Yield the alarms whose condition holds at evaluation `index`, as known then."""
    so_far = {key: values[: index + 1] for key, values in metrics.items()}
    thresholds = asdict(limits)
    level = limits.false_alarms / len(_ALARMS) / (index * (index + 1))
    for name, (needed, find) in _ALARMS.items():
        threshold = thresholds[name]
        if threshold is None or needed - metrics.keys():
            continue
        finding = find(so_far, threshold)
        if finding.beyond and finding.p_value < level:
            message = finding.message.format(value=finding.value, threshold=threshold)
            yield Alarm(name, step, finding.value, threshold, message)


def new_alarms(history: Sequence[HeldOutLine], limits: AlarmLimits) -> list[Alarm]:
    """Return the alarms that the last evaluation raised for the first time."""
    last = history[-1].step
    return [alarm for alarm in alarms(history, limits) if alarm.step == last]


def _length(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["length"]
    growth = _ratio(values) - 1
    true_reward = metrics.get("true_reward")
    gained = (
        true_reward is not None and p_value_of_rise(true_reward[-1] - true_reward[0]) < _GAIN_LEVEL
    )
    reason = "with no true reward to show a gain" if true_reward is None else "without a gain"
    return _Finding(
        growth,
        growth > threshold and not gained,
        p_value_of_rise(values[-1] - values[0]),
        f"Responses have grown by {{value:.0%}} in length (threshold {{threshold:.0%}}), {reason}"
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
    return _Finding(rise, rise > threshold, p_value_of_rise(differences), message)


def _entropy(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["entropy"]
    share = _ratio(values)
    return _Finding(
        share,
        share < threshold,
        p_value_of_fall(values[-1] - values[0]),
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
    """Detect a fall of the true reward from its best while the proxy stays above its start.

    The proxy need not keep rising: near its ceiling its rise is within noise while the true
    reward falls sharply.
    """
    true_reward, proxy = metrics["true_reward"], metrics["proxy"]
    fall = -since_best(true_reward)
    since = since_best(proxy, chosen_by=true_reward)
    deviation = float(true_reward[0].std())
    size = float(fall.mean()) / deviation if deviation > 0 else float(fall.mean())
    held = p_value_of_fall(since) > _HELD_LEVEL
    return _Finding(
        size,
        size > threshold and held and fallen(true_reward),
        # `fallen` tests the fall itself, at two consecutive evaluations.
        p_value_of_rise(proxy[-1] - proxy[0]),
        "The true reward has fallen {value:.2f} standard deviations below its best (threshold "
        "{threshold:g}), and the proxy, up since the start, has not.",
    )


def _score_range(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["out_of_range"]
    share = float(values[-1].mean())
    return _Finding(
        share,
        share > threshold,
        p_value_of_rise(values[-1] - values[0]),
        "{value:.0%} of the scores lie outside those of reward-model training (threshold "
        "{threshold:.0%}).",
    )


def _disagreement(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["disagreement"]
    factor = _ratio(values)
    return _Finding(
        factor,
        factor > threshold,
        p_value_of_rise(values[-1] - values[0]),
        "The reward models disagree {value:.1f} times as much as at the start (threshold "
        "{threshold:g}).",
    )


def _state_distance(metrics: Metrics, threshold: float) -> _Finding:
    values = metrics["state_distance"]
    factor = _ratio(values)
    return _Finding(
        factor,
        factor > threshold,
        p_value_of_rise(values[-1] - values[0]),
        "The reward model's states are {value:.2f} times as far from those of SFT's responses as at "
        "the start (threshold {threshold:g}).",
    )


def _saturation(metrics: Metrics, threshold: float) -> _Finding:
    return _rise(
        metrics["saturated"],
        threshold,
        "The share of scores at the clip has risen by {value:.3f} (threshold {threshold:g}).",
    )


def _takeover(metrics: Metrics, threshold: float) -> _Finding:
    """Detect one source that rises while the sum of the others falls."""
    changes = {
        name.removeprefix(CONTRIBUTION): values[-1] - values[0]
        for name, values in metrics.items()
        if name.startswith(CONTRIBUTION)
    }
    if len(changes) < 2:
        return _Finding(0.0, beyond=False, p_value=1.0, message="")
    name = max(changes, key=lambda source: float(changes[source].mean()))
    others = sum(change for source, change in changes.items() if source != name)
    rise, fall = float(changes[name].mean()), -float(np.mean(others))
    value = fall / rise if rise > 0 else 0.0
    return _Finding(
        value,
        value > threshold,
        max(p_value_of_rise(changes[name]), p_value_of_fall(others)),
        "The reward source "
        + name.replace("{", "{{").replace("}", "}}")
        + " takes over: the others have lost {value:.0%} of what it has gained (threshold "
        "{threshold:.0%}).",
    )


def _ratio(values: NDArray[np.float64]) -> float:
    """Return the last mean as a share of the first; 1 if the first is 0 (undefined)."""
    first, last = float(values[0].mean()), float(values[-1].mean())
    return last / first if first > 0 else 1.0


# Field of `AlarmLimits` -> required metrics and check.
_ALARMS: dict[str, tuple[frozenset[str], Callable[[Metrics, float], _Finding]]] = {
    "length": (frozenset({"length"}), _length),
    "repetition": (frozenset({"repetition"}), _repetition),
    "certainty": (frozenset({"certainty"}), _certainty),
    "entropy": (frozenset({"entropy"}), _entropy),
    "kl": (frozenset({"kl"}), _kl),
    "divergence": (frozenset({"true_reward", "proxy"}), _divergence),
    "score_range": (frozenset({"out_of_range"}), _score_range),
    "disagreement": (frozenset({"disagreement"}), _disagreement),
    "state_distance": (frozenset({"state_distance"}), _state_distance),
    "saturation": (frozenset({"saturated"}), _saturation),
    "takeover": (frozenset({"proxy"}), _takeover),
}
