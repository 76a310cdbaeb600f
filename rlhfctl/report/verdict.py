"""The verdict of a report: one sentence derived from the metrics by fixed rules.

With an evaluation of both SFT and PPO, the first rule that holds decides. "Above" and "below"
mean that the 95 % CI of PPO's win rate over SFT lies entirely above or below 0.5. The
judge is gold where gold is available, else the most independent judge that compared PPO with SFT:
people, then an endpoint, then a function, then a reward model that PPO never saw.

| judge | its win rate | proxy win rate | level | sentence |
|---|---|---|---|---|
| yes | above | any | `gain` | PPO beats SFT |
| yes | below | above | `hacking` | the proxy rose and the judge's win rate fell: reward hacking |
| yes | below | not above | `loss` | PPO is worse than SFT |
| yes | neither | above | `hacking` | the proxy rose, the judge's win rate did not: likely hacking |
| yes | neither | not above | `unclear` | no evidence of a gain |
| none | - | above | `proxy` | PPO scores higher, but only on its training reward |
| none | - | below | `loss` | PPO scores lower even on its training reward |
| none | - | neither | `unclear` | no evidence of a gain |

A stop of PPO by an alarm is named after the sentence, with the policy that it returned.

Before that, the level is `unfinished` and the sentence names the next command.

Cautions follow the sentence; `rlhfctl.report.cautions` has their rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.cautions import act_sentence, cautions
from rlhfctl.report.numbers import number, value_of
from rlhfctl.report.significance import Judge, judges_of, side, win_rate
from rlhfctl.stage_table import EVALUATION, STAGES

if TYPE_CHECKING:
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate

LABELS = {
    "gain": "Gain",
    "hacking": "Reward hacking",
    "loss": "Loss",
    "proxy": "Gain on the proxy only",
    "unclear": "No evidence of a gain",
    "unfinished": "Unfinished",
}


@dataclass(frozen=True)
class Verdict:
    """Verdict on a run.

    Attributes:
        level: One of `LABELS`.
        sentence: The verdict with its metrics.
        cautions: Caveats.
    """

    level: str
    sentence: str
    cautions: tuple[str, ...]

    @property
    def label(self) -> str:
        """The level in words."""
        return LABELS[self.level]


def verdict_of(facts: RunFacts) -> Verdict:
    """Return the verdict on a run, by the rules above."""
    level, sentence = _sentence(facts)
    return Verdict(level, f"{sentence}{_stopped(facts)}", tuple(cautions(facts, level)))


def _stopped(facts: RunFacts) -> str:
    """Return the sentence on a stop by an alarm and the policy that was returned; empty without."""
    summary = facts.over_optimisation
    acts = (summary.acts if summary else None) or []
    if not acts or acts[-1].kind != "stop" or summary is None:
        return ""
    if summary.best is not None:
        result = f"its best policy (episode {number(summary.best.step)})"
    elif acts[-1].restored_step is not None:
        result = f"the last policy without an alarm (episode {number(acts[-1].restored_step)})"
    else:
        result = "its last policy"
    return f" {act_sentence(acts[-1])} Its result is {result}."


def _sentence(facts: RunFacts) -> tuple[str, str]:
    if value_of(facts.comparison.win_rate) is None:
        return "unfinished", _progress(facts)
    ppo = facts.policy("ppo")
    kl = value_of(ppo.kl) if ppo else None
    at_kl = f" at {number(kl)} nats of KL" if kl is not None else ""
    proxy, judges = facts.comparison.proxy_win_rate, judges_of(facts)
    name = facts.policy_name
    return _by_judge(name, judges[0], proxy, at_kl) if judges else _by_proxy(name, proxy, at_kl)


def _by_judge(name: str, judge: Judge, proxy: Estimate | None, at_kl: str) -> tuple[str, str]:
    judge_side = judge.side
    won, by_proxy = judge.rate, win_rate("proxy", proxy)
    if judge_side == "above":
        return "gain", f"{name} beats SFT: {won}{at_kl}."
    if side(proxy) == "above":
        fell, did_not = (
            ("gold fell", "gold did not")
            if judge.kind == "gold"
            else (f"{judge.name} prefers SFT", f"{judge.name} finds no gain")
        )
        finding = (
            f"The proxy rose and {fell}, which is reward hacking"
            if judge_side == "below"
            else f"The proxy rose but {did_not}, likely reward hacking"
        )
        return "hacking", f"{finding}: {won}, {by_proxy}{at_kl}."
    if judge_side == "below":
        return "loss", f"{name} is worse than SFT: {won}{at_kl}."
    return "unclear", f"No evidence of a gain: {won}{at_kl}."


def _by_proxy(name: str, proxy: Estimate | None, at_kl: str) -> tuple[str, str]:
    won, proxy_side = win_rate("proxy", proxy), side(proxy)
    if proxy_side == "above":
        return "proxy", (
            f"{name} beats SFT on the score it was trained on: {won}{at_kl}. Without a gold reward or "
            "an independent judge, this does not show that its responses are better."
        )
    if proxy_side == "below":
        return "loss", f"{name} is below SFT even on the score it was trained on: {won}{at_kl}."
    return "unclear", f"No evidence of a gain: {won}{at_kl}."


def _progress(facts: RunFacts) -> str:
    missing = [stage for stage in STAGES if stage.name not in facts.records]
    finished = [stage.name for stage in STAGES if stage.name in facts.records]
    if EVALUATION.name in finished and facts.evaluation is None:
        return f"The evaluation cannot be read: run rlhfctl {EVALUATION.command} --force."
    if not missing:
        return f"SFT and PPO have not been compared: run rlhfctl {EVALUATION.command} --force."
    progress = f"Finished: {', '.join(finished)}." if finished else "No stage is finished."
    return f"{progress} Next: rlhfctl {missing[0].command}."
