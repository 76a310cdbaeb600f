from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import shapes

from rlhfctl.report.sources import RunFacts
from rlhfctl.report.verdict import verdict_of
from rlhfctl.run.manifest import Artifact, StageRecord

ABOVE, BELOW, AROUND = (0.84, 0.8, 0.88), (0.3, 0.25, 0.35), (0.5, 0.45, 0.55)
Rate = tuple[float, float, float]
MakeRecord = Callable[..., StageRecord]


def rate(name: str, interval: Rate) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def evaluated(proxy: Rate, gold: Rate | None, **policy: float) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "policies": {"sft": {"kl": 0.0, "length": 20}, "ppo": {"kl": 6.1, "length": 20} | policy}
    }
    metrics |= rate("proxy_win_rate", proxy) | rate("win_rate", gold or proxy)
    return metrics | (rate("gold_win_rate", gold) if gold else {})


def facts(metrics: dict[str, Any] | None = None, **fields: Any) -> RunFacts:
    blank: dict[str, Any] = {"records": {}, "curves": {}, "samples": [], "training_samples": []}
    return RunFacts(**{"name": "r", "recipe": "", "evaluation": metrics or {}} | blank | fields)


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
def test_the_intervals_decide(gold: Rate | None, proxy: Rate, level: str, sentence: str) -> None:
    verdict = verdict_of(facts(evaluated(proxy, gold)))
    assert (verdict.level, verdict.sentence) == (level, sentence)
    assert verdict.cautions == ()


def test_an_interval_that_touches_one_half_is_no_evidence() -> None:
    assert verdict_of(facts(evaluated(AROUND, (0.6, 0.5, 0.7)))).level == "unclear"


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
    verdict = verdict_of(facts(records={stage: make_record(stage, {}) for stage in finished}))
    assert (verdict.level, verdict.sentence) == ("unfinished", sentence)


def cautions(metrics: dict[str, Any] | None = None, **fields: Any) -> str:
    return " ".join(verdict_of(facts(metrics or evaluated(ABOVE, ABOVE), **fields)).cautions)


def test_kl_above_the_recipes_alarm_is_a_caution(make_record: MakeRecord) -> None:
    assert "High KL to the reference: 26.0" in cautions(evaluated(ABOVE, ABOVE, kl=26.0))
    strict = make_record("ppo", {}, recipe_part={"ppo": {"kl_alarm": 5.0}})
    assert "6.10 nats per response (limit 5.00)" in cautions(records={"ppo": strict})


def test_a_change_of_length_ending_or_repetition_is_a_caution() -> None:
    assert "from 20.0 to 27.0 tokens" in cautions(evaluated(ABOVE, ABOVE, length=27.0))
    assert not cautions(evaluated(ABOVE, ABOVE, length=25.0))
    metrics = evaluated(ABOVE, ABOVE, eos_share=0.7, repetition=0.5)
    metrics["policies"]["sft"] |= {"eos_share": 0.95, "repetition": 0.02}
    assert "Fewer responses end with EOS: 0.70, against 0.95 for SFT." in cautions(metrics)
    assert "repeat more n-grams: 0.50, against 0.02 for SFT." in cautions(metrics)


def test_a_weak_reward_model_is_a_caution(make_record: MakeRecord) -> None:
    chance = make_record("rm", {"accuracy_low": 0.49})
    assert "not significantly above 0.5" in cautions(records={"rm": chance})
    length = make_record("rm", {"accuracy_low": 0.6, "length_accuracy": 0.62})
    assert "always preferring the longer response (0.62)" in cautions(records={"rm": length})
    good = make_record("rm", {"accuracy_low": 0.7, "length_accuracy": 0.62})
    assert not cautions(records={"rm": good})


def test_more_wins_without_a_higher_mean_is_a_caution() -> None:
    metrics = evaluated(ABOVE, ABOVE) | {"gold_gain_low": -0.1}
    assert "its mean gold reward is not significantly above" in cautions(metrics)


def test_skipped_minibatches_and_lost_metrics_are_cautions(make_record: MakeRecord) -> None:
    skipping = make_record("ppo", {"skipped_minibatches": 3})
    assert "PPO skipped 3 minibatches" in cautions(records={"ppo": skipping})
    steps = [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]
    assert "sft: non-finite metrics at 1 of" in cautions(curves={"sft": steps})


def test_a_result_of_an_earlier_input_is_a_caution(make_record: MakeRecord) -> None:
    records = {stage: make_record(stage, {}) for stage in ("sft", "rm", "ppo", "eval")}
    assert not cautions(records=records)
    records["ppo"] = replace(records["ppo"], outputs={"ppo": Artifact("ppo", "another hash")})
    assert "ppo was re-run after eval used it" in cautions(records=records)


def judged(kind: str, interval: Rate, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "opponent": "sft"} | rate("win_rate", interval) | more


def test_where_gold_is_unknown_a_judge_decides() -> None:
    for interval, proxy, level in (
        (ABOVE, AROUND, "gain"),
        (AROUND, ABOVE, "hacking"),
        (BELOW, ABOVE, "hacking"),
        (BELOW, AROUND, "loss"),
        (AROUND, AROUND, "unclear"),
    ):
        metrics = evaluated(proxy, None) | {
            "judges": {"held_out_rm": judged("reward_model", interval)}
        }
        assert verdict_of(facts(metrics)).level == level
    metrics = evaluated(ABOVE, None) | {"judges": {"held_out_rm": judged("reward_model", AROUND)}}
    assert verdict_of(facts(metrics)).sentence == (
        "The proxy rose but the held-out reward model finds no gain, likely reward hacking: held-out "
        "reward model win rate 0.50 (0.45 to 0.55), proxy win rate 0.84 (0.80 to 0.88) at 6.10 nats "
        "of KL."
    )


def test_the_most_independent_judge_decides_and_a_contrary_one_is_a_caution() -> None:
    judges = {
        "held_out_rm": judged("reward_model", ABOVE),
        "endpoint": judged("endpoint", BELOW),
        "against_references": judged("endpoint", ABOVE) | {"opponent": "references"},
    }
    verdict = verdict_of(facts(evaluated(AROUND, None) | {"judges": judges}))
    assert verdict.level == "loss"
    assert verdict.sentence.startswith("PPO is worse than SFT: judge endpoint win rate 0.30")
    (caution,) = verdict.cautions
    assert caution == (
        "The held-out reward model contradicts this: held-out reward model win rate 0.84 "
        "(0.80 to 0.88)."
    )
    judges["votes"] = judged("humans", ABOVE)
    assert verdict_of(facts(evaluated(AROUND, None) | {"judges": judges})).level == "gain"


def test_gold_decides_before_any_judge() -> None:
    metrics = evaluated(ABOVE, ABOVE) | {"judges": {"endpoint": judged("endpoint", AROUND)}}
    verdict = verdict_of(facts(metrics))
    assert verdict.level == "gain"
    assert "The judge endpoint finds no significant gain" in verdict.cautions[0]


def test_a_gain_that_length_may_explain_is_a_caution() -> None:
    metrics = evaluated(ABOVE, ABOVE) | rate("gold_length_controlled_win_rate", AROUND)
    assert "length may explain the gain" in cautions(metrics)
    metrics = evaluated(ABOVE, ABOVE) | rate("gold_length_controlled_win_rate", ABOVE)
    assert not cautions(metrics)


def test_alarms_and_a_fall_of_the_true_reward_are_cautions() -> None:
    said = cautions(over_optimisation=shapes.OVER_OPTIMISATION)
    assert "Alarm at episode 1,792: The proxy rises while the true reward falls." in said
    assert "after its best checkpoint (episode 1,024), which is saved as ppo/best" in said
    quiet = shapes.OVER_OPTIMISATION | {"alarms": [], "fallen": False}
    assert not cautions(over_optimisation=quiet)
    assert "stopped early" in cautions(over_optimisation=quiet | {"stopped_early": True})


def test_a_score_that_rises_where_a_hedge_goes_may_be_right_and_is_no_caution() -> None:
    hedge = {**shapes.ends("change", 0.9), "responses": 9, "description": "hedging removed"}
    assert not cautions(
        evaluated(ABOVE, ABOVE) | {"reward_model": {"probes": {"hedge_removed": hedge}}}
    )


def test_that_ppo_imitates_demonstrations_less_than_sft_does_is_no_caution() -> None:
    worse = shapes.METRICS["tax"]["tasks"]["perplexity"]
    metrics = evaluated(ABOVE, ABOVE)
    assert "worse than SFT" in cautions(metrics | {"tax": {"tasks": {"other": worse}}})
    assert not cautions(metrics | {"tax": {"tasks": {"demonstrations": worse}}})


def test_reward_model_and_judge_warnings_are_cautions() -> None:
    said = cautions(evaluated(ABOVE, ABOVE) | shapes.METRICS)
    assert "scores degraded responses higher: padded with filler." in said
    assert "above the annotators' ceiling" in said
    assert "PPO is worse than SFT at perplexity." in said
    assert "Judge endpoint: 5 answers could not be read." in said
