from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rlhfctl.report.sources import RunFacts
from rlhfctl.report.verdict import verdict_of
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import (
    Comparison,
    EvaluationResult,
    ProbeResult,
    RewardModelEvaluation,
    Tax,
)
from rlhfctl.run.manifest import Artifact, StageRecord
from tests.report import shapes

ABOVE, BELOW = Estimate(0.84, 0.8, 0.88), Estimate(0.3, 0.25, 0.35)
AROUND = Estimate(0.5, 0.45, 0.55)
MakeRecord = Callable[..., StageRecord]


def evaluated(
    proxy: Estimate,
    gold: Estimate | None,
    ppo: dict[str, Any] | None = None,
    controlled: Estimate | None = None,
    gain: Estimate | None = None,
    **parts: Any,
) -> EvaluationResult:
    """An evaluation with these win rates, metrics of the PPO policy, and parts."""
    comparison = Comparison(
        win_rate=gold or proxy,
        proxy_win_rate=proxy,
        gold_win_rate=gold,
        gold_gain=gain,
        gold_length_controlled_win_rate=controlled,
    )
    policies = {
        "sft": shapes.policy(),
        "ppo": shapes.policy(**{"kl": Estimate(6.1)} | (ppo or {})),
    }
    return shapes.evaluation(comparison, policies=policies, **parts)


def facts(evaluation: EvaluationResult | None = None, **fields: Any) -> RunFacts:
    blank: dict[str, Any] = {"name": "r", "recipe": "", "records": {}, "curves": {}}
    return RunFacts(**blank | {"evaluation": evaluation} | fields)


@pytest.mark.parametrize(
    ("gold", "proxy", "level", "sentence"),
    [
        (
            ABOVE,
            ABOVE,
            "gain",
            "PPO beats SFT: gold win rate 0.84 (0.80 to 0.88) at 6.10 nats of KL.",
        ),
        (
            ABOVE,
            AROUND,
            "gain",
            "PPO beats SFT: gold win rate 0.84 (0.80 to 0.88) at 6.10 nats of KL.",
        ),
        (
            AROUND,
            ABOVE,
            "hacking",
            (
                "The proxy rose but gold did not, likely reward hacking: gold win rate 0.50 (0.45 to "
                "0.55), proxy win rate 0.84 (0.80 to 0.88) at 6.10 nats of KL."
            ),
        ),
        (
            BELOW,
            ABOVE,
            "hacking",
            (
                "The proxy rose and gold fell, which is reward hacking: gold win rate 0.30 (0.25 to "
                "0.35), proxy win rate 0.84 (0.80 to 0.88) at 6.10 nats of KL."
            ),
        ),
        (
            BELOW,
            AROUND,
            "loss",
            "PPO is worse than SFT: gold win rate 0.30 (0.25 to 0.35) at 6.10 nats of KL.",
        ),
        (
            AROUND,
            AROUND,
            "unclear",
            "No evidence of a gain: gold win rate 0.50 (0.45 to 0.55) at 6.10 nats of KL.",
        ),
        (
            None,
            ABOVE,
            "proxy",
            (
                "PPO beats SFT on the score it was trained on: proxy win rate 0.84 (0.80 to 0.88) "
                "at 6.10 nats of KL. Without a gold reward or an independent judge, this does not "
                "show that its responses are better."
            ),
        ),
        (
            None,
            BELOW,
            "loss",
            (
                "PPO is below SFT even on the score it was trained on: proxy win rate 0.30 (0.25 to "
                "0.35) at 6.10 nats of KL."
            ),
        ),
        (
            None,
            AROUND,
            "unclear",
            "No evidence of a gain: proxy win rate 0.50 (0.45 to 0.55) at 6.10 nats of KL.",
        ),
    ],
)
def test_the_intervals_decide(
    gold: Estimate | None, proxy: Estimate, level: str, sentence: str
) -> None:
    verdict = verdict_of(facts(evaluated(proxy, gold)))
    assert (verdict.level, verdict.sentence) == (level, sentence)
    assert verdict.cautions == ()


def test_an_interval_that_touches_one_half_is_no_evidence() -> None:
    assert verdict_of(facts(evaluated(AROUND, Estimate(0.6, 0.5, 0.7)))).level == "unclear"


@pytest.mark.parametrize(
    ("finished", "sentence"),
    [
        ((), "No stage is finished. Next: rlhfctl sft."),
        (("sft",), "Finished: sft. Next: rlhfctl train-rm."),
        (("sft", "rm", "ppo"), "Finished: sft, rm, ppo. Next: rlhfctl eval."),
        (
            ("sft", "rm", "ppo", "eval"),
            "SFT and PPO have not been compared: run rlhfctl eval --force.",
        ),
    ],
)
def test_without_a_comparison_it_names_the_next_command(
    finished: tuple[str, ...], sentence: str, make_record: MakeRecord
) -> None:
    evaluation = shapes.evaluation() if "eval" in finished else None
    records = {stage: make_record(stage, {}) for stage in finished}
    verdict = verdict_of(facts(evaluation, records=records))
    assert (verdict.level, verdict.sentence) == ("unfinished", sentence)


def cautions(evaluation: EvaluationResult | None = None, **fields: Any) -> str:
    return " ".join(verdict_of(facts(evaluation or evaluated(ABOVE, ABOVE), **fields)).cautions)


def test_kl_above_the_recipes_alarm_is_a_caution(make_record: MakeRecord) -> None:
    high = evaluated(ABOVE, ABOVE, ppo={"kl": Estimate(26.0)})
    assert "High KL to the reference: 26.0" in cautions(high)
    strict = make_record("ppo", {}, recipe_part={"ppo": {"kl_alarm": 5.0}})
    assert "6.10 nats per response (limit 5.00)" in cautions(records={"ppo": strict})


def test_a_change_of_length_ending_or_repetition_is_a_caution() -> None:
    assert "from 20.0 to 27.0 tokens" in cautions(evaluated(ABOVE, ABOVE, ppo={"length": 27.0}))
    assert not cautions(evaluated(ABOVE, ABOVE, ppo={"length": 25.0}))
    said = cautions(evaluated(ABOVE, ABOVE, ppo={"eos_share": 0.7, "repetition": 0.5}))
    assert "Fewer responses end with EOS: 0.70, against 0.95 for SFT." in said
    assert "repeat more n-grams: 0.50, against 0.02 for SFT." in said


def test_a_weak_reward_model_is_a_caution() -> None:
    chance = shapes.rm_result(accuracy=Estimate(0.52, 0.49, 0.55))
    assert "not significantly above 0.5" in cautions(reward_model=chance)
    length = Estimate(0.62)
    weak = shapes.rm_result(accuracy=Estimate(0.65, 0.6, 0.7), length_accuracy=length)
    assert "always preferring the longer response (0.62)" in cautions(reward_model=weak)
    assert not cautions(reward_model=shapes.rm_result(length_accuracy=length))
    shorter = shapes.rm_result(accuracy=Estimate(0.65, 0.6, 0.7), length_accuracy=Estimate(0.3))
    assert "always preferring the shorter response (0.70)" in cautions(reward_model=shorter)


def test_more_wins_without_a_higher_mean_is_a_caution() -> None:
    said = cautions(evaluated(ABOVE, ABOVE, gain=Estimate(0.2, -0.1, 0.5)))
    assert "its mean gold reward is not significantly above" in said


def test_skipped_minibatches_and_lost_metrics_are_cautions() -> None:
    said = cautions(ppo=shapes.ppo_result(skipped_minibatches=3))
    assert "PPO skipped 3 minibatches" in said
    steps = [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]
    assert "sft: non-finite metrics at 1 of" in cautions(curves={"sft": steps})


def test_a_result_of_an_earlier_input_is_a_caution(make_record: MakeRecord) -> None:
    records = {stage: make_record(stage, {}) for stage in ("sft", "rm", "ppo", "eval")}
    assert not cautions(records=records)
    records["ppo"] = replace(records["ppo"], outputs={"ppo": Artifact("ppo", "another hash")})
    assert "ppo was re-run after eval used it" in cautions(records=records)


def test_where_gold_is_unknown_a_judge_decides() -> None:
    def with_judge(proxy: Estimate, rate: Estimate) -> EvaluationResult:
        judges = {"held_out_rm": shapes.judge("reward_model", rate)}
        return evaluated(proxy, None, judges=judges)

    for rate, proxy, level in (
        (ABOVE, AROUND, "gain"),
        (AROUND, ABOVE, "hacking"),
        (BELOW, ABOVE, "hacking"),
        (BELOW, AROUND, "loss"),
        (AROUND, AROUND, "unclear"),
    ):
        assert verdict_of(facts(with_judge(proxy, rate))).level == level
    assert verdict_of(facts(with_judge(ABOVE, AROUND))).sentence == (
        "The proxy rose but the held-out reward model finds no gain, likely reward hacking: held-out "
        "reward model win rate 0.50 (0.45 to 0.55), proxy win rate 0.84 (0.80 to 0.88) at 6.10 nats "
        "of KL."
    )


def test_the_most_independent_judge_decides_and_a_contrary_one_is_a_caution() -> None:
    judges = {
        "held_out_rm": shapes.judge("reward_model", ABOVE),
        "endpoint": shapes.judge("endpoint", BELOW),
        "against_references": shapes.judge("endpoint", ABOVE, opponent="references"),
    }
    verdict = verdict_of(facts(evaluated(AROUND, None, judges=judges)))
    assert verdict.level == "loss"
    assert verdict.sentence.startswith("PPO is worse than SFT: judge endpoint win rate 0.30")
    (caution,) = verdict.cautions
    assert caution == (
        "The held-out reward model contradicts this: held-out reward model win rate 0.84 "
        "(0.80 to 0.88)."
    )
    judges["votes"] = shapes.judge("humans", ABOVE)
    assert verdict_of(facts(evaluated(AROUND, None, judges=judges))).level == "gain"


def test_gold_decides_before_any_judge() -> None:
    judges = {"endpoint": shapes.judge("endpoint", AROUND)}
    verdict = verdict_of(facts(evaluated(ABOVE, ABOVE, judges=judges)))
    assert verdict.level == "gain"
    assert "The judge endpoint finds no significant gain" in verdict.cautions[0]


def test_a_gain_that_length_may_explain_is_a_caution() -> None:
    said = cautions(evaluated(ABOVE, ABOVE, controlled=AROUND))
    assert "length may explain the gain" in said
    assert not cautions(evaluated(ABOVE, ABOVE, controlled=ABOVE))


def test_alarms_and_a_fall_of_the_true_reward_are_cautions() -> None:
    said = cautions(over_optimisation=shapes.OVER_OPTIMISATION)
    assert "Alarm at episode 1,792: The proxy rises while the true reward falls." in said
    assert "after its best checkpoint (episode 1,024), which is saved as ppo/best" in said
    quiet = replace(shapes.OVER_OPTIMISATION, alarms=[], fallen=False)
    assert not cautions(over_optimisation=quiet)
    assert "stopped early" in cautions(over_optimisation=replace(quiet, stopped_early=True))


def test_acts_on_alarms_are_cautions_and_a_stop_stands_in_the_verdict() -> None:
    acted = replace(shapes.OVER_OPTIMISATION, acts=[shapes.ROLLED_BACK])
    assert (
        "PPO went back to its policy of episode 1,024 at episode 1,792 because of the alarms "
        "divergence and score range; beta rose from 0.050 to 0.100."
    ) in cautions(over_optimisation=acted)
    found = facts(evaluated(ABOVE, ABOVE))
    plain = verdict_of(replace(found, over_optimisation=acted)).sentence
    acts = [shapes.ROLLED_BACK, shapes.STOPPED]
    stopped = replace(found, over_optimisation=replace(acted, acts=acts))
    said = " PPO was stopped at episode 2,048 because of the alarm length. Its result is "
    assert verdict_of(stopped).sentence == f"{plain}{said}its best policy (episode 1,024)."
    blind = replace(acted, best=None, acts=[replace(shapes.STOPPED, restored_step=512)])
    assert verdict_of(replace(found, over_optimisation=blind)).sentence == (
        f"{plain}{said}the last policy without an alarm (episode 512)."
    )


@pytest.mark.parametrize(("probe", "is_caution"), [("hedge_removed", False), ("filler", True)])
def test_a_score_that_rises_where_a_hedge_goes_may_be_right_and_is_no_caution(
    probe: str, is_caution: bool
) -> None:
    held_out = shapes.REWARD_MODEL.held_out
    assert held_out is not None
    rising = {probe: ProbeResult(shapes.around(0.9), 9, "something removed")}
    probed = RewardModelEvaluation(replace(held_out, probes=rising))
    said = cautions(evaluated(ABOVE, ABOVE, reward_model=probed))
    assert ("something removed" in said) == is_caution


def test_that_ppo_imitates_demonstrations_less_than_sft_does_is_no_caution() -> None:
    other = Tax({"other": shapes.PERPLEXITY})
    assert "worse than SFT" in cautions(evaluated(ABOVE, ABOVE, tax=other))
    demonstrations = Tax({"demonstrations": shapes.PERPLEXITY})
    assert not cautions(evaluated(ABOVE, ABOVE, tax=demonstrations))


def test_reward_model_and_judge_warnings_are_cautions() -> None:
    said = cautions(evaluated(ABOVE, ABOVE, **shapes.PARTS))
    assert "scores degraded responses higher: padded with filler." in said
    assert "above the annotators' ceiling" in said
    assert "PPO is worse than SFT at perplexity." in said
    assert "Judge endpoint: 5 answers could not be read." in said
