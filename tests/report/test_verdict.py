from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rlhfctl.report.sources import RunFacts
from rlhfctl.report.verdict import judge
from rlhfctl.run.manifest import Artifact, StageRecord

ABOVE, BELOW, AROUND = (0.84, 0.8, 0.88), (0.3, 0.25, 0.35), (0.5, 0.45, 0.55)
Rate = tuple[float, float, float]
MakeRecord = Callable[..., StageRecord]


def rate(name: str, interval: Rate) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def evaluated(proxy: Rate, gold: Rate | None, **policy: float) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "policies": {"sft": {"kl": 0.0, "length": 20}, "ppo": {"kl": 6.1, "length": 20} | policy}
    }
    figures |= rate("proxy_win_rate", proxy) | rate("win_rate", gold or proxy)
    return figures | (rate("gold_win_rate", gold) if gold else {})


def facts(figures: dict[str, Any] | None = None, **fields: Any) -> RunFacts:
    blank: dict[str, Any] = {"records": {}, "curves": {}, "samples": [], "training_samples": []}
    return RunFacts(**{"name": "r", "recipe": "", "figures": figures or {}} | blank | fields)


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
                "PPO is above SFT by the score it was trained on: proxy win rate 0.84 (0.80 to 0.88) "
                "at 6.10 nats of KL. No gold reward is known here, so this alone does not show that "
                "its responses are better."
            ),
        ),
        (
            None,
            BELOW,
            "loss",
            (
                "PPO is below SFT even by the score it was trained on: proxy win rate 0.30 (0.25 to "
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
    verdict = judge(facts(evaluated(proxy, gold)))
    assert (verdict.level, verdict.sentence) == (level, sentence)
    assert verdict.cautions == ()


def test_an_interval_that_touches_one_half_is_no_evidence() -> None:
    assert judge(facts(evaluated(AROUND, (0.6, 0.5, 0.7)))).level == "unclear"


@pytest.mark.parametrize(
    ("finished", "sentence"),
    [
        ((), "No stage is finished yet. Next: rlhfctl sft."),
        (("sft",), "Finished so far: sft. Next: rlhfctl train-rm."),
        (("sft", "rm", "ppo"), "Finished so far: sft, rm, ppo. Next: rlhfctl eval."),
        (
            ("sft", "rm", "ppo", "eval"),
            "SFT and PPO have not been judged side by side: run rlhfctl eval --force.",
        ),
    ],
)
def test_without_a_comparison_it_names_the_next_command(
    finished: tuple[str, ...], sentence: str, make_record: MakeRecord
) -> None:
    verdict = judge(facts(records={stage: make_record(stage, {}) for stage in finished}))
    assert (verdict.level, verdict.sentence) == ("unfinished", sentence)


def cautions(figures: dict[str, Any] | None = None, **fields: Any) -> str:
    return " ".join(judge(facts(figures or evaluated(ABOVE, ABOVE), **fields)).cautions)


def test_kl_above_the_recipes_alarm_is_a_caution(make_record: MakeRecord) -> None:
    assert "KL to the reference is high: 26.0" in cautions(evaluated(ABOVE, ABOVE, kl=26.0))
    strict = make_record("ppo", {}, recipe_part={"ppo": {"kl_alarm": 5.0}})
    assert "6.10 nats a response, above 5.00" in cautions(records={"ppo": strict})


def test_a_change_of_length_ending_or_repetition_is_a_caution() -> None:
    assert "from 20.0 to 27.0 tokens" in cautions(evaluated(ABOVE, ABOVE, length=27.0))
    assert not cautions(evaluated(ABOVE, ABOVE, length=25.0))
    figures = evaluated(ABOVE, ABOVE, eos_share=0.7, repetition=0.5)
    figures["policies"]["sft"] |= {"eos_share": 0.95, "repetition": 0.02}
    assert "Fewer responses end by themselves: a share of 0.70, 0.95 before." in cautions(figures)
    assert "repeat themselves more: a share of 0.50, 0.02 before." in cautions(figures)


def test_a_weak_reward_model_is_a_caution(make_record: MakeRecord) -> None:
    chance = make_record("rm", {"accuracy_low": 0.49})
    assert "not clearly above one half" in cautions(records={"rm": chance})
    length = make_record("rm", {"accuracy_low": 0.6, "length_accuracy": 0.62})
    assert "taking the longer response (0.62)" in cautions(records={"rm": length})
    good = make_record("rm", {"accuracy_low": 0.7, "length_accuracy": 0.62})
    assert not cautions(records={"rm": good})


def test_more_wins_without_a_higher_mean_is_a_caution() -> None:
    figures = evaluated(ABOVE, ABOVE) | {"gold_gain_low": -0.1}
    assert "its mean gold reward is not above" in cautions(figures)


def test_skipped_minibatches_and_lost_figures_are_cautions(make_record: MakeRecord) -> None:
    skipping = make_record("ppo", {"skipped_minibatches": 3})
    assert "ratio was out of bounds: 3." in cautions(records={"ppo": skipping})
    steps = [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]
    assert "sft: a figure was not finite at 1 of" in cautions(curves={"sft": steps})


def test_a_result_of_an_earlier_input_is_a_caution(make_record: MakeRecord) -> None:
    records = {stage: make_record(stage, {}) for stage in ("sft", "rm", "ppo", "eval")}
    assert not cautions(records=records)
    records["ppo"] = replace(records["ppo"], outputs={"ppo": Artifact("ppo", "another hash")})
    assert "ppo was made anew after eval used it" in cautions(records=records)
