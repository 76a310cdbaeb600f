"""Cautions that qualify a verdict.

A caution is given if its rule holds: results have another version's format; a stage used an input
that was re-run since; the reward model's accuracy CI does not lie above 0.5, or not above the better
of "the longer one wins" and "the shorter one wins"; a probe other than hedge removal significantly
raises its score; the reward model's, the annotators' or a judge's own warnings; a task of the
alignment tax other than imitating demonstrations is significantly worse; KL above the recipe's
`kl_alarm` (25 nats); length changed by more than 30 %; the share ended by EOS fell, or the share of
repeated n-grams rose, by more than 0.1; the win rate is a gain but the mean gold reward, another
judge or the length-controlled win rate is not significantly one; judges contradict one another; an
alarm was raised on held-out prompts, or the true reward fell significantly below its best;
minibatches were skipped; metrics were not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.numbers import finite, number, share, signed, value_of
from rlhfctl.report.sections.reward_model import probe_side
from rlhfctl.report.sections.tax import tax_side
from rlhfctl.report.significance import judges_of
from rlhfctl.stage_table import ALL_STAGES, PPO, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.evaluation import EvaluationResult, PolicyMetrics
    from rlhfctl.results.training import AlarmAct, OverOptimisation, RewardModelResult

LENGTH_CHANGE = 0.3
SHARE_CHANGE = 0.1
KL_ALARM = 25.0
_IMITATION = "demonstrations"  # SFT's likelihood of demonstrations is higher wherever PPO moves
_EITHER_WAY = "hedge_removed"  # removing an undue hedge can improve a response


def cautions(facts: RunFacts, level: str) -> Iterator[str]:
    """Yield the cautions for a verdict of this level, by the rules above."""
    yield from facts.unreadable
    for name, input_name in facts.stale():
        yield (
            f"{input_name} was re-run after {name} used it, so {name}'s metrics are out of date. "
            f"Run rlhfctl {stage_named(name).command}."
        )
    if facts.reward_model is not None:
        yield from _reward_model_cautions(facts.reward_model)
    if facts.evaluation is not None:
        yield from _evaluation_cautions(facts.evaluation, facts.policy_name)
    yield from _policy_cautions(facts.policy("sft"), facts.policy("ppo"), kl_limit(facts))
    gain = facts.comparison.gold_gain
    low = finite(gain.low) if gain else None
    if level == "gain" and low is not None and low <= 0:
        yield (
            f"{facts.policy_name} wins more often, but its mean gold reward is not significantly "
            "above SFT's."
        )
    yield from _judge_cautions(facts, level)
    if facts.over_optimisation is not None:
        yield from _held_out_cautions(facts.over_optimisation)
    if facts.ppo is not None and facts.ppo.skipped_minibatches:
        yield (
            f"PPO skipped {number(facts.ppo.skipped_minibatches)} minibatches because their ratio "
            "was out of bounds."
        )
    for stage in ALL_STAGES:
        lost = sum(None in step.values() for step in facts.curves.get(stage.name, []))
        if lost:
            yield f"{stage.name}: non-finite metrics at {lost} of the logged steps."


def _reward_model_cautions(result: RewardModelResult) -> Iterator[str]:
    low = finite(result.accuracy.low)
    if low is None:
        return
    if low <= 0.5:
        yield "The reward model's accuracy is not significantly above 0.5 (its 95 % CI reaches it)."
        return
    baseline = result.length_baseline
    length = value_of(baseline.accuracy)
    if length is not None and low <= length:
        yield (
            f"The reward model's accuracy is not significantly above that of always preferring the "
            f"{baseline.preferred} response ({share(length)})."
        )


def _evaluation_cautions(result: EvaluationResult, policy: str) -> Iterator[str]:
    """Yield failed reward model probes, annotator warnings and the alignment tax."""
    held_out = result.reward_model.held_out if result.reward_model else None
    fooled = [
        probe.description
        for name, probe in ((held_out.probes if held_out else None) or {}).items()
        if probe_side(probe) == "rises" and name != _EITHER_WAY
    ]
    if fooled:
        yield f"The reward model scores degraded responses higher: {'; '.join(fooled)}."
    if result.annotators is not None:
        yield from result.annotators.warnings
    worse = [
        name
        for name, task in (result.tax.tasks if result.tax else {}).items()
        if tax_side(task) == "worse" and name != _IMITATION
    ]
    if worse:
        yield f"{policy} is worse than SFT at {', '.join(worse)}."


def _judge_cautions(facts: RunFacts, level: str) -> Iterator[str]:
    """Yield disagreements between judges, length effects and each judge's warnings."""
    judges = judges_of(facts)
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
    for name, judge in ((facts.evaluation.judges if facts.evaluation else None) or {}).items():
        yield from (f"Judge {name}: {text}" for text in judge.preferences.warnings)


def _held_out_cautions(summary: OverOptimisation) -> Iterator[str]:
    """Yield alarms on held-out prompts and a significant fall since the best checkpoint."""
    for alarm in summary.alarms:
        yield f"Alarm at episode {number(alarm.step)}: {alarm.message}"
    yield from (act_sentence(act) for act in summary.acts or () if act.kind != "stop")
    if summary.fallen and summary.best is not None:
        yield (
            "The true reward fell significantly after its best checkpoint (episode "
            f"{number(summary.best.step)}), which is saved as ppo/best."
        )
    if summary.stopped_early:
        yield "PPO stopped early because the true reward fell."


def act_sentence(act: AlarmAct) -> str:
    """Return what was done on alarms at one evaluation, and why."""
    names = " and ".join(name.replace("_", " ") for name in act.alarms)
    plural = "s" if len(act.alarms) > 1 else ""
    cause = f"at episode {number(act.step)} because of the alarm{plural} {names}"
    beta = f"beta rose from {number(act.beta_before)} to {number(act.beta)}"
    match act.kind:
        case "raise_beta":
            return f"{_capitalized(beta)} {cause}."
        case "rollback":
            back = number(act.restored_step or 0)
            return f"PPO went back to its policy of episode {back} {cause}; {beta}."
        case "stop":
            return f"PPO was stopped {cause}."


def _capitalized(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _policy_cautions(
    sft: PolicyMetrics | None, ppo: PolicyMetrics | None, kl_alarm: float
) -> Iterator[str]:
    kl = value_of(ppo.kl) if ppo else None
    if kl is not None and kl > kl_alarm:
        limit = number(kl_alarm)
        yield f"High KL to the reference: {number(kl)} nats per response (limit {limit})."
    if sft is None or ppo is None:
        return
    before, after = finite(sft.length), finite(ppo.length)
    if before and after is not None and abs(after / before - 1) > LENGTH_CHANGE:
        yield (
            f"Mean response length {'rose' if after > before else 'fell'} from {number(before)} to "
            f"{number(after)} tokens ({signed(round(100 * (after / before - 1)))} %). Check that "
            "the reward model is not simply rewarding "
            f"{'long' if after > before else 'short'} answers."
        )
    for first, second, sign, change in (
        (sft.eos_share, ppo.eos_share, -1, "Fewer responses end with EOS"),
        (sft.repetition, ppo.repetition, 1, "Responses repeat more n-grams"),
    ):
        if sign * (second - first) > SHARE_CHANGE:
            yield f"{change}: {share(second)}, against {share(first)} for SFT."


def kl_limit(facts: RunFacts) -> float:
    """Return the recipe's `ppo.kl_alarm`, in nats per response."""
    record = facts.records.get(PPO.name)
    section = record.recipe_part.get("ppo") if record else None
    alarm = finite(section.get("kl_alarm")) if isinstance(section, dict) else None
    return KL_ALARM if alarm is None else alarm
