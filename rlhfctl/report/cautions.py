"""What to know before trusting a verdict.

Each caution follows where its rule holds: a stage used an input that was made anew since; the
reward model's accuracy interval does not lie above one half, or not above the accuracy of "the
longer one wins"; a probe but the lost hedge raises its score for certain; the reward model's, the
annotators' or a judge's own warnings; a task of the alignment tax other than imitating
demonstrations is worse for certain; KL above the recipe's `kl_alarm` (25 nats); length changed by
more than 30 %; the share ended by EOS fell, or the share of repeated n-grams rose, by more than
0.1; the win rate is a gain but the mean gold reward, another judge or the length-controlled win
rate is not clearly one; judges contradict one another; an alarm was raised on held-out prompts, or
the true reward fell significantly below its best; minibatches were skipped; metrics were not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import objects
from rlhfctl.report.numbers import finite, number, share
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
_IMITATION = "demonstrations"  # whatever PPO moves to, SFT writes them more likely
_EITHER_WAY = "hedge_removed"  # doubt that was not due makes a response better when it goes


def cautions(facts: RunFacts, level: str) -> Iterator[str]:
    """Yield what to know before trusting a verdict of this level, by the rules above."""
    for name, input_name in facts.stale():
        yield (
            f"{input_name} was re-run after {name} used it, so {name}'s metrics are out of date. "
            f"Run rlhfctl {stage_named(name).command}."
        )
    yield from _reward_model_cautions(facts.stage_metrics(REWARD_MODEL))
    yield from _trial_cautions(facts.evaluation)
    sft, ppo = (policy(facts.evaluation, name) for name in ("sft", "ppo"))
    yield from _policy_cautions(sft, ppo, _kl_alarm(facts))
    gain = finite(facts.evaluation.get("gold_gain_low"))
    if level == "gain" and gain is not None and gain <= 0:
        yield "PPO wins more often, but its mean gold reward is not above SFT's."
    yield from _judge_cautions(facts.evaluation, level)
    yield from _watch_cautions(facts.over_optimisation)
    skipped = facts.stage_metrics(PPO).get("skipped_minibatches")
    if finite(skipped):
        yield f"Minibatches that PPO skipped because their ratio was out of bounds: {number(skipped)}."
    for stage in STAGES:
        lost = sum(None in step.values() for step in facts.curves.get(stage.name, []))
        if lost:
            yield f"{stage.name}: a figure was not finite at {lost} of its logged steps."


def _reward_model_cautions(metrics: Mapping[str, Any]) -> Iterator[str]:
    low = finite(metrics.get("accuracy_low"))
    if low is None:
        return
    if low <= 0.5:
        yield "The reward model's accuracy is not clearly above one half."
        return
    length = finite(metrics.get("length_accuracy"))
    if length is not None and low <= length:
        yield (
            f"The reward model's accuracy is not clearly above that of taking the longer "
            f"response ({share(length)})."
        )


def _trial_cautions(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the reward model falls for, and what the annotators' metrics warn of."""
    trial = objects(metrics).get("reward_model", {})
    fooled = [
        str(probe.get("description") or name.replace("_", " "))
        for name, probe in objects(trial.get("probes")).items()
        if probe_side(probe) == "rises" and name != _EITHER_WAY
    ]
    if fooled:
        yield f"The reward model's score rises where a response is made worse: {'; '.join(fooled)}."
    for part in (trial, objects(metrics).get("annotators", {})):
        yield from _texts(part.get("warnings"))
    worse = [
        name
        for name, task in objects(objects(metrics).get("tax", {}).get("tasks")).items()
        if tax_side(task) == "worse" and name != _IMITATION
    ]
    if worse:
        yield f"PPO is worse than SFT at {', '.join(worse)}."


def _judge_cautions(metrics: Mapping[str, Any], level: str) -> Iterator[str]:
    """Yield where judges differ, where length explains a win, and what weakens a judge."""
    found = judges_of(metrics)
    for first, other in ((found[0], other) for other in found[1:]):
        if {first.side, other.side} == {"above", "below"}:
            yield f"The contrary is found by {other.name}: {other.rate}."
        elif level == "gain" and other.side != "above":
            yield f"No certain gain is found by {other.name}: {other.rate}."
    if level == "gain" and found and found[0].controlled not in {"", "above"}:
        yield "At equal length the win rate is not clearly above one half: length may explain it."
    for name, judge in objects(metrics.get("judges")).items():
        yield from (f"Judge {name}: {text}" for text in _texts(judge.get("warnings")))


def _watch_cautions(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the alarms that PPO raised on held-out prompts, and a fall since the best look."""
    for alarm in summary.get("alarms") or []:
        if isinstance(alarm, dict) and alarm.get("message"):
            yield f"Alarm at {number(alarm.get('step'))} episodes: {alarm['message']}"
    if summary.get("fallen"):
        best = number(objects(summary).get("best", {}).get("step"))
        yield (
            f"The true reward has fallen below its best, which PPO had at {best} episodes; that policy "
            "is kept as ppo/best."
        )
    if summary.get("stopped_early"):
        yield "PPO was stopped early, because the true reward had fallen."


def _texts(found: Any) -> list[str]:
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _policy_cautions(
    sft: Mapping[str, Any], ppo: Mapping[str, Any], kl_alarm: float
) -> Iterator[str]:
    kl = finite(ppo.get("kl"))
    if kl is not None and kl > kl_alarm:
        yield f"KL to the reference is high: {number(kl)} nats a response, above {number(kl_alarm)}."
    before, after = finite(sft.get("length")), finite(ppo.get("length"))
    if before and after is not None and abs(after / before - 1) > LENGTH_CHANGE:
        yield (
            f"Responses went from {number(before)} to {number(after)} tokens: look whether length "
            "is what the score rewards."
        )
    for name, sign, what in (
        ("eos_share", -1, "Fewer responses end by themselves"),
        ("repetition", 1, "Responses repeat themselves more"),
    ):
        first, second = finite(sft.get(name)), finite(ppo.get(name))
        if first is not None and second is not None and sign * (second - first) > SHARE_CHANGE:
            yield f"{what}: a share of {share(second)}, {share(first)} before."


def _kl_alarm(facts: RunFacts) -> float:
    record = facts.records.get(PPO.name)
    section = record.recipe_part.get("ppo") if record else None
    alarm = finite(section.get("kl_alarm")) if isinstance(section, dict) else None
    return KL_ALARM if alarm is None else alarm
