"""The one sentence on top of a report, written from the figures by fixed rules.

With an evaluation of both SFT and PPO, the first rule that holds decides. "Above" and "below"
mean that the whole 95 % interval of the win rate of PPO over SFT lies above or below one half.

| gold is known | gold win rate | proxy win rate | level | says |
|---|---|---|---|---|
| yes | above | any | `gain` | PPO beats SFT |
| yes | below | above | `hacking` | the proxy rose and gold fell: reward hacking |
| yes | below | not above | `loss` | PPO is worse than SFT |
| yes | neither | above | `hacking` | the proxy rose but gold did not: likely reward hacking |
| yes | neither | not above | `unclear` | no evidence of a gain |
| no | - | above | `proxy` | PPO scores higher by the score it was trained on, which shows no more than that |
| no | - | below | `loss` | PPO scores lower even by the score it was trained on |
| no | - | neither | `unclear` | no evidence of a gain |

Before that, the level is `unfinished` and the sentence says which command comes next.

Cautions follow the sentence, each where its rule holds: a stage used an input that was made anew
since; the reward model's accuracy interval does not lie above one half, or not above the accuracy
of "the longer one wins"; KL above the recipe's `kl_alarm` (25 nats); length changed by more than
30 %; the share ended by EOS fell, or the share of repeated n-grams rose, by more than 0.1; the win
rate is a gain but the mean gold reward is not; minibatches were skipped; figures were not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report.numbers import finite, number, share
from rlhfctl.report.sources import COMMANDS, STAGES, RunFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LENGTH_CHANGE = 0.3
SHARE_CHANGE = 0.1
KL_ALARM = 25.0

LABELS = {
    "gain": "Gain",
    "hacking": "Reward hacking",
    "loss": "Loss",
    "proxy": "Gain by the proxy only",
    "unclear": "No evidence of a gain",
    "unfinished": "Unfinished",
}


@dataclass(frozen=True)
class Verdict:
    """What the figures say.

    Attributes:
        level: One of `LABELS`.
        sentence: The verdict with its figures.
        cautions: What to know before trusting it.
    """

    level: str
    sentence: str
    cautions: tuple[str, ...]

    @property
    def label(self) -> str:
        """The level in words."""
        return LABELS[self.level]


def judge(facts: RunFacts) -> Verdict:
    """Return the verdict on a run, by the rules above."""
    level, sentence = _sentence(facts)
    return Verdict(level, sentence, tuple(_cautions(facts, level)))


def _sentence(facts: RunFacts) -> tuple[str, str]:
    figures = facts.figures
    if finite(figures.get("win_rate")) is None:
        return "unfinished", _progress(facts)
    kl = finite(_policy(figures, "ppo").get("kl"))
    at = f" at {number(kl)} nats of KL" if kl is not None else ""
    proxy = _side(figures, "proxy_win_rate")
    if finite(figures.get("gold_win_rate")) is None:
        return _by_proxy(figures, proxy, at)
    return _by_gold(figures, proxy, at)


def _by_gold(figures: Mapping[str, Any], proxy: str, at: str) -> tuple[str, str]:
    gold = _side(figures, "gold_win_rate")
    won, by_proxy = _rate(figures, "gold"), _rate(figures, "proxy")
    if gold == "above":
        return "gain", f"PPO beats SFT: {won}{at}."
    if proxy == "above":
        found = (
            "The proxy rose and gold fell, which is reward hacking"
            if gold == "below"
            else "The proxy rose but gold did not, likely reward hacking"
        )
        return "hacking", f"{found}: {won}, {by_proxy}{at}."
    if gold == "below":
        return "loss", f"PPO is worse than SFT: {won}{at}."
    return "unclear", f"No evidence of a gain: {won}{at}."


def _by_proxy(figures: Mapping[str, Any], side: str, at: str) -> tuple[str, str]:
    won = _rate(figures, "proxy")
    if side == "above":
        return "proxy", (
            f"PPO is above SFT by the score it was trained on: {won}{at}. No gold reward is known "
            "here, so this alone does not show that its responses are better."
        )
    if side == "below":
        return "loss", f"PPO is below SFT even by the score it was trained on: {won}{at}."
    return "unclear", f"No evidence of a gain: {won}{at}."


def _progress(facts: RunFacts) -> str:
    missing = [stage for stage in STAGES if stage not in facts.records]
    done = [stage for stage in STAGES if stage in facts.records]
    if not missing:
        return "SFT and PPO have not been judged side by side: run rlhfctl eval --force."
    found = f"Finished so far: {', '.join(done)}." if done else "No stage is finished yet."
    return f"{found} Next: {COMMANDS[missing[0]]}."


def _cautions(facts: RunFacts, level: str) -> Iterator[str]:
    for stage, used in facts.stale():
        yield (
            f"{used} was made anew after {stage} used it: the figures of {stage} are of the "
            f"earlier one. Run {COMMANDS[stage]}."
        )
    yield from _reward_model_cautions(facts.metrics("rm"))
    sft, ppo = (_policy(facts.figures, name) for name in ("sft", "ppo"))
    yield from _policy_cautions(sft, ppo, _kl_alarm(facts))
    gain = finite(facts.figures.get("gold_gain_low"))
    if level == "gain" and gain is not None and gain <= 0:
        yield "PPO wins more often, but its mean gold reward is not above SFT's."
    skipped = facts.metrics("ppo").get("skipped_minibatches")
    if finite(skipped):
        yield f"Minibatches that PPO skipped because their ratio was out of bounds: {number(skipped)}."
    for stage in STAGES:
        lost = sum(None in step.values() for step in facts.curves.get(stage, []))
        if lost:
            yield f"{stage}: a figure was not finite at {lost} of its logged steps."


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
    record = facts.records.get("ppo")
    section = record.recipe_part.get("ppo") if record else None
    alarm = finite(section.get("kl_alarm")) if isinstance(section, dict) else None
    return KL_ALARM if alarm is None else alarm


def _policy(figures: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    policies = figures.get("policies")
    policy = policies.get(name) if isinstance(policies, dict) else None
    return policy if isinstance(policy, dict) else {}


def _side(figures: Mapping[str, Any], name: str) -> str:
    """Return on which side of one half an interval lies; a missing one lies on neither."""
    low, high = finite(figures.get(f"{name}_low")), finite(figures.get(f"{name}_high"))
    if low is not None and low > 0.5:
        return "above"
    return "below" if high is not None and high < 0.5 else "neither"


def _rate(figures: Mapping[str, Any], judge_name: str) -> str:
    name = f"{judge_name}_win_rate"
    low, high = share(figures.get(f"{name}_low")), share(figures.get(f"{name}_high"))
    return f"{judge_name} win rate {share(figures.get(name))} ({low} to {high})"
