"""Values at one KL, and the reward, of the benchmark of answers in steps."""

from types import SimpleNamespace

import pytest

from benchmarks.steps import at_kl, frontier, gold


def line(kl, rewards):
    return SimpleNamespace(kl=SimpleNamespace(value=kl), per_prompt={"true_reward": rewards})


def test_values_are_interpolated_in_the_root_of_kl_with_an_interval_over_prompts():
    lines = [line(0.0, [0.0, 1.0]), line(1.0, [1.0, 1.0]), line(9.0, [2.0, 3.0])]
    half = at_kl(lines, 4.0)
    assert half["gain"] == pytest.approx((1.5 + 1.0) / 2)
    assert half["win_rate"] == pytest.approx((1.0 + 0.75) / 2)
    assert half["gain_high"] - half["gain"] == pytest.approx(1.96 * 0.25)
    assert at_kl(lines, 9.0)["gain"] == pytest.approx(2.0)


def test_the_frontier_leaves_out_what_less_kl_surpasses():
    lines = [line(0.0, [0.0]), line(8.0, [-1.0]), line(3.0, [1.0]), line(5.0, [1.0])]
    assert frontier(lines) == [lines[0], lines[2]]


def test_the_reward_of_a_function_source_is_the_gold_reward():
    prompt = [{"role": "user", "content": "What is 7 plus 5?"}]
    assert gold([prompt, prompt], ["7 plus 5 is 12.", "7 plus 5 is 7."]) == [2.0, -1.0]
