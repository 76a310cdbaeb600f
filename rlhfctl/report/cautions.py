"""Cautions that qualify a verdict.

A caution is given if its rule holds: a stage used an input that was re-run since; the reward
model's accuracy CI does not lie above 0.5, or not above the accuracy of "the longer one wins"; a
probe other than hedge removal significantly raises its score; the reward model's, the annotators'
or a judge's own warnings; a task of the alignment tax other than imitating demonstrations is
significantly worse; KL above the recipe's `kl_alarm` (25 nats); length changed by more than 30 %;
the share ended by EOS fell, or the share of repeated n-grams rose, by more than 0.1; the win rate
is a gain but the mean gold reward, another judge or the length-controlled win rate is not
significantly one; judges contradict one another; an alarm was raised on held-out prompts, or the
true reward fell significantly below its best; minibatches were skipped; metrics were not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import objects
from rlhfctl.report.numbers import finite, number, share, signed
from rlhfctl.report.sections.reward_model import probe_side
from rlhfctl.report.sections.tax import tax_side
from rlhfctl.report.significance import judges_of, policy
from rlhfctl.stage_table import PPO, REWARD_MODEL, STAGES, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.report.sources import RunFacts

LENGTH_CHANGE = 0.3
SHARE_CHANGE = 0.1
KL_ALARM = 25.0
_IMITATION = "demonstrations"  # SFT's likelihood of demonstrations is higher wherever PPO moves
_EITHER_WAY = "hedge_removed"  # removing an undue hedge can improve a response


def cautions(facts: RunFacts, level: str) -> Iterator[str]:
    """Yield the cautions for a verdict of this level, by the rules above."""
    for name, input_name in facts.stale():
        yield (
            f"{input_name} was re-run after {name} used it, so {name}'s metrics are out of date. "
            f"Run rlhfctl {stage_named(name).command}."
        )
    yield from _reward_model_cautions(facts.stage_metrics(REWARD_MODEL))
    yield from _evaluation_cautions(facts.evaluation)
    sft, ppo = (policy(facts.evaluation, name) for name in ("sft", "ppo"))
    yield from _policy_cautions(sft, ppo, _kl_alarm(facts))
    gain = finite(facts.evaluation.get("gold_gain_low"))
    if level == "gain" and gain is not None and gain <= 0:
        yield "PPO wins more often, but its mean gold reward is not significantly above SFT's."
    yield from _judge_cautions(facts.evaluation, level)
    yield from _held_out_cautions(facts.over_optimisation)
    skipped = facts.stage_metrics(PPO).get("skipped_minibatches")
    if finite(skipped):
        yield f"PPO skipped {number(skipped)} minibatches because their ratio was out of bounds."
    for stage in STAGES:
        lost = sum(None in step.values() for step in facts.curves.get(stage.name, []))
        if lost:
            yield f"{stage.name}: non-finite metrics at {lost} of the logged steps."


def _reward_model_cautions(metrics: Mapping[str, Any]) -> Iterator[str]:
    low = finite(metrics.get("accuracy_low"))
    if low is None:
        return
    if low <= 0.5:
        yield "The reward model's accuracy is not significantly above 0.5 (its 95 % CI reaches it)."
        return
    length = finite(metrics.get("length_accuracy"))
    if length is not None and low <= length:
        yield (
            f"The reward model's accuracy is not significantly above that of always preferring the "
            f"longer response ({share(length)})."
        )


def _evaluation_cautions(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield failed reward model probes, annotator warnings and the alignment tax."""
    reward_model = objects(metrics).get("reward_model", {})
    fooled = [
        str(probe.get("description") or name.replace("_", " "))
        for name, probe in objects(reward_model.get("probes")).items()
        if probe_side(probe) == "rises" and name != _EITHER_WAY
    ]
    if fooled:
        yield f"The reward model scores degraded responses higher: {'; '.join(fooled)}."
    for part in (reward_model, objects(metrics).get("annotators", {})):
        yield from _texts(part.get("warnings"))
    worse = [
        name
        for name, task in objects(objects(metrics).get("tax", {}).get("tasks")).items()
        if tax_side(task) == "worse" and name != _IMITATION
    ]
    if worse:
        yield f"PPO is worse than SFT at {', '.join(worse)}."


def _judge_cautions(metrics: Mapping[str, Any], level: str) -> Iterator[str]:
    """Yield disagreements between judges, length effects and each judge's warnings."""
    judges = judges_of(metrics)
    for first, other in ((judges[0], other) for other in judges[1:]):
        if {first.side, other.side} == {"above", "below"}:
            yield f"{_capitalized(other.name)} contradicts this: {other.rate}."
        elif level == "gain" and other.side != "above":
            yield f"{_capitalized(other.name)} finds no significant gain: {other.rate}."
    if level == "gain" and judges and judges[0].controlled not in {"", "above"}:
        yield (
            "The length-controlled win rate is not significantly above 0.5: length may explain "
            "the gain."
        )
    for name, judge in objects(metrics.get("judges")).items():
        yield from (f"Judge {name}: {text}" for text in _texts(judge.get("warnings")))


def _held_out_cautions(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield alarms on held-out prompts and a significant fall since the best checkpoint."""
    for alarm in summary.get("alarms") or []:
        if isinstance(alarm, dict) and alarm.get("message"):
            yield f"Alarm at episode {number(alarm.get('step'))}: {alarm['message']}"
    if summary.get("fallen"):
        best = number(objects(summary).get("best", {}).get("step"))
        yield (
            f"The true reward fell significantly after its best checkpoint (episode {best}), which "
            "is saved as ppo/best."
        )
    if summary.get("stopped_early"):
        yield "PPO stopped early because the true reward fell."


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _policy_cautions(
    sft: Mapping[str, Any], ppo: Mapping[str, Any], kl_alarm: float
) -> Iterator[str]:
    kl = finite(ppo.get("kl"))
    if kl is not None and kl > kl_alarm:
        yield f"High KL to the reference: {number(kl)} nats per response (limit {number(kl_alarm)})."
    before, after = finite(sft.get("length")), finite(ppo.get("length"))
    if before and after is not None and abs(after / before - 1) > LENGTH_CHANGE:
        yield (
            f"Mean response length {'rose' if after > before else 'fell'} from {number(before)} to "
            f"{number(after)} tokens ({signed(round(100 * (after / before - 1)))} %). Check that the "
            f"reward model is not simply rewarding {'long' if after > before else 'short'} answers."
        )
    for name, sign, change in (
        ("eos_share", -1, "Fewer responses end with EOS"),
        ("repetition", 1, "Responses repeat more n-grams"),
    ):
        first, second = finite(sft.get(name)), finite(ppo.get(name))
        if first is not None and second is not None and sign * (second - first) > SHARE_CHANGE:
            yield f"{change}: {share(second)}, against {share(first)} for SFT."


def _kl_alarm(facts: RunFacts) -> float:
    record = facts.records.get(PPO.name)
    section = record.recipe_part.get("ppo") if record else None
    alarm = finite(section.get("kl_alarm")) if isinstance(section, dict) else None
    return KL_ALARM if alarm is None else alarm
