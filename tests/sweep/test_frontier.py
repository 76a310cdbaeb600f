"""Points of frontiers against their definitions, and values read off them at one KL."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import BestOfN, BestOfNRow
from rlhfctl.results.methods import FrontierPoint, MethodRun
from rlhfctl.results.scores import PromptScores, ResponseScores
from rlhfctl.results.training import HeldOutLine
from rlhfctl.sweep.frontier import (
    START,
    common_kl,
    in_order,
    mean_frontier,
    of_best_of_n,
    of_evaluation,
    of_held_out,
    over_optimisation,
    value_at,
)
from rlhfctl.sweep.methods import summary


def point(kl, gain=0.0, win_rate=0.5):
    return FrontierPoint(kl, win_rate, gain, None, "x")


def held_out(step, kl, true_reward, proxy):
    zero = Estimate(0.0)
    return HeldOutLine(
        step=step, rollout=step, kl=Estimate(kl), proxy=zero, length=zero, repetition=zero,
        certainty=zero, hedging=zero, entropy=zero, eos_share=1.0, sqrt_kl=0.0,
        per_prompt={"true_reward": true_reward, "proxy": proxy},
    )  # fmt: skip


def test_held_out_evaluations_are_compared_with_the_first_by_prompt():
    lines = [
        held_out(0, 0.0, [1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]),
        held_out(256, 2.0, [2.0, 2.0, 1.0, 9.0], [1.0, 1.0, 1.0, 1.0]),
        held_out(128, 0.5, [1.0, 2.0, 3.0, 5.0], [0.0, 2.0, 0.0, 0.0]),
    ]
    assert of_held_out(lines) == [
        START,
        FrontierPoint(0.5, (3 * 0.5 + 1) / 4, 0.25, 0.5, "128 episodes"),
        FrontierPoint(2.0, (1 + 0.5 + 0 + 1) / 4, 1.0, 1.0, "256 episodes"),
    ]


@pytest.mark.parametrize(("judge", "gain"), [("gold", 2.0), ("held_out_rm", -1.0)])
def test_an_evaluation_is_a_point_by_its_judge(judge, gain):
    sft = ResponseScores([0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 3.0])
    ppo = ResponseScores([1.0, 3.0], [1.0, 1.0], [3.0, 3.0], [2.0, 2.0])
    found = of_evaluation(PromptScores("x", {"sft": sft, "ppo": ppo}), judge, "beta = 1")
    assert found == FrontierPoint(2.0, float(gain > 0), gain, 0.5, "beta = 1")


def test_an_evaluation_without_the_judge_has_no_point():
    scores = ResponseScores([0.0], [0.0])
    with pytest.raises(KeyError, match="gold"):
        of_evaluation(PromptScores("x", {"sft": scores, "ppo": scores}), "gold", "x")


def test_best_of_n_gains_over_its_first():
    def curve(*values):
        return [
            BestOfNRow(n, math.log(n) - (n - 1) / n, Estimate(value))
            for n, value in zip((1, 2, 4), values, strict=True)
        ]

    result = BestOfN(4, 8, curve(0.0, 1.0, 1.5), curve(2.0, 2.5, 2.25), None, curve(0.5, 0.6, 0.7))
    first, two, four = of_best_of_n(result, "gold")
    assert first == START
    assert two.kl == pytest.approx(0.1931, abs=1e-4)
    assert two == FrontierPoint(two.kl, 0.6, 0.5, 1.0, "n = 2")
    assert (four.gain, four.win_rate, four.name) == (0.25, 0.7, "n = 4")
    with pytest.raises(KeyError, match="held_out_rm"):
        of_best_of_n(result, "held_out_rm")


@given(
    st.dictionaries(st.integers(1, 900), st.floats(-2, 2), min_size=1, max_size=6),
    st.integers(1, 900),
)
def test_values_are_read_between_the_two_points_around_a_kl(gains, hundredths):
    points, kl = in_order([point(key / 100, gain) for key, gain in gains.items()]), hundredths / 100
    found = value_at(points, kl, "gain")
    if kl > max(p.kl for p in points):
        assert found is None
        return
    assert found is not None
    below = max((p for p in points if p.kl <= kl), key=lambda p: p.kl)
    above = min((p for p in points if p.kl >= kl), key=lambda p: p.kl)
    low = min(p.gain for p in points if p.kl in (below.kl, above.kl))
    high = max(p.gain for p in points if p.kl in (below.kl, above.kl))
    assert low - 1e-9 <= found <= high + 1e-9


def test_between_two_points_the_root_of_kl_is_the_measure():
    points = in_order([point(4.0, 2.0, 0.9), point(0.0, 5.0), point(-0.1, 5.0)])
    assert points == [START, point(4.0, 2.0, 0.9)], "SFT itself is the only point at KL 0"
    assert value_at(points, 1.0, "gain") == pytest.approx(1.0)
    assert value_at(points, 1.0, "win_rate") == pytest.approx(0.7)
    assert value_at(points, 4.0, "gain") == 2.0
    assert value_at(points, 4.01, "gain") is None


def test_the_common_kl_is_the_largest_that_all_reach():
    one, two = in_order([point(1.0), point(3.0)]), in_order([point(2.0)])
    assert common_kl([one, two]) == 2.0
    assert common_kl([one, [START]]) is None
    assert common_kl([]) is None


def test_the_mean_frontier_reaches_as_far_as_every_seed_and_one_seed_keeps_its_points():
    one, two = in_order([point(1.0, 1.0)]), in_order([point(1.0, 0.5), point(4.0, 2.0)])
    means = mean_frontier([one, two])
    assert [mean.kl for mean in means[:2]] == pytest.approx([0.0, 1 / 144])
    assert means[-1].kl == 1.0
    assert (means[0].gain.value, means[-1].gain.value) == (0.0, 0.75)
    assert means[-1].gain.low == pytest.approx(0.75 - 12.706 * 0.25, abs=1e-3)
    assert means[-1].proxy_gain is None
    (alone, *_, end) = mean_frontier([two])
    assert (alone.kl, end.kl, end.gain) == (0.0, 4.0, Estimate(2.0))
    assert mean_frontier([[START], two]) == []


def test_over_optimisation_is_what_is_lost_since_the_best():
    assert over_optimisation(in_order([point(1.0, 0.8), point(2.0, 0.5)])) == pytest.approx(-0.3)
    assert over_optimisation(in_order([point(1.0, 0.3), point(2.0, 0.5)])) == 0.0
    assert over_optimisation(in_order([point(1.0, -0.2)])) == pytest.approx(-0.2)


def test_a_summary_is_the_mean_over_seeds_with_an_interval_between_them():
    runs = [
        MethodRun(
            "ppo", seed, ["x"], "done", frontier=in_order([point(4.0, gain, 0.9)]),
            result=point(kl, gain, 0.9), seconds=10.0 + seed, total_seconds=20.0,
        )
        for seed, (kl, gain) in enumerate([(4.0, 2.0), (5.0, 4.0)])
    ]  # fmt: skip
    found = summary("ppo", runs, 1.0)
    assert found.seeds == [0, 1]
    assert found.kl is not None
    assert found.kl.value == 4.5
    assert found.kl.low == pytest.approx(4.5 - 12.706 * 0.5, abs=1e-3)
    assert found.gain_at_kl is not None
    assert found.gain_at_kl.value == pytest.approx(1.5)
    assert found.seconds is not None
    assert found.seconds.low == pytest.approx(4.147, abs=1e-3)
    assert found.memory_bytes is None
    beyond = summary("ppo", runs, 4.5)
    assert beyond.gain_at_kl is None, "no seed is left out in silence"
