"""The first screen: tiles, chart and samples to read first."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfctl.report import first_screen, highlights
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.report.tiles import tiles
from rlhfctl.report.verdict import verdict_of
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison
from rlhfctl.results.samples import EvaluationSample, SampleScores
from tests.report import shapes

MakeFacts = Callable[..., RunFacts]


def row(name: str, change: float, same: bool = False) -> EvaluationSample:
    ppo = "before" if same else f"after {name}"
    scores = {"sft": SampleScores(0.0, 1.0), "ppo": SampleScores(0.0, 1.0 + change)}
    return EvaluationSample(name, {"sft": "before", "ppo": ppo}, scores)


ROWS = [row("a", 3.0), row("b", 0.0, same=True), row("c", -2.0), row("d", 0.0), row("e", 1.0)]


def test_the_tiles_are_win_rate_true_reward_kl_and_length(judged_run: Path) -> None:
    rate, reward, kl, length = tiles(read_run(judged_run))
    assert (rate.name, rate.unit, rate.tone) == ("Win rate over SFT", "by gold", "good")
    assert (reward.name, reward.unit, len(reward.bars)) == ("True reward", "gold", 2)
    assert reward.bars[0].estimate < reward.bars[1].estimate
    assert (kl.before, kl.after, kl.note) == ("0", "6.00", "scale: 0 to the alarm at 25")
    assert kl.bars[0].estimate == pytest.approx(24)
    assert (length.after, length.unit, length.change) == ("4.00", "tokens", "0 %")


def test_a_run_under_way_shows_its_held_out_evaluations(make_facts: MakeFacts) -> None:
    facts = make_facts(held_out=shapes.HELD_OUT, over_optimisation=shapes.OVER_OPTIMISATION)
    reward, kl, length = tiles(facts)
    assert (reward.before, reward.after, reward.unit) == ("0.400", "0.080", "gold")
    assert kl.after == "4.00"
    assert (length.before, length.after, length.tone) == ("16.0", "40.0", "mild")


def test_without_gold_the_tiles_name_what_they_show(make_facts: MakeFacts) -> None:
    policies = {
        "sft": shapes.policy(proxy=Estimate(0.5)),
        "ppo": shapes.policy(proxy=Estimate(0.2), kl=Estimate(60.0)),
    }
    comparison = Comparison(proxy_win_rate=Estimate(0.3, 0.2, 0.4))
    rate, reward, kl, _ = tiles(make_facts(shapes.evaluation(comparison, policies=policies)))
    assert (rate.unit, rate.tone) == ("by the proxy", "bad")
    assert (reward.name, reward.change, reward.bars) == ("Proxy reward", "−0.300", ())
    assert (kl.tone, kl.change) == ("bad", "no interval")


def test_a_run_without_ppo_has_neither_tiles_nor_chart(make_run: Callable[..., Path]) -> None:
    facts = read_run(make_run("sft", "rm"))
    shown = first_screen.of(facts, verdict_of(facts))
    assert (shown.tiles, shown.chart, shown.pair) == ((), None, None)


def test_the_chart_marks_the_best_checkpoint_and_the_alarms(judged_run: Path) -> None:
    facts = read_run(judged_run)
    chart = first_screen.of(facts, verdict_of(facts)).chart
    assert chart is not None
    assert [line.label for line in chart.lines] == ["proxy", "gold"]
    assert [(mark.kind, mark.position) for mark in chart.marks] == [
        ("best", 1024.0),
        ("alarm", 1792.0),
    ]
    plain = first_screen.of(replace(facts, held_out=[]), verdict_of(facts)).chart
    assert plain is not None
    assert plain.title == "Score during PPO"


def test_best_gain_worst_loss_and_a_tie_are_shown_first() -> None:
    best, worst, tie = highlights.best_worst_and_tie(ROWS)
    assert (best.title, best.sample.prompt) == ("Best gain", "a")
    assert best.note == "largest rise of gold (+3.00)"
    assert (worst.title, worst.sample.prompt) == ("Worst loss", "c")
    assert (tie.title, tie.sample.prompt, tie.note) == ("A tie", "d", "no change of gold")


def test_what_there_is_not_is_not_shown() -> None:
    assert [one.title for one in highlights.best_worst_and_tie(ROWS[1:2])] == ["A tie"]
    assert highlights.best_worst_and_tie([EvaluationSample("p", {"sft": "x"}, {})]) == []
    assert highlights.typical([]) is None


def test_the_typical_sample_has_the_median_change_of_those_that_differ() -> None:
    typical = highlights.typical(ROWS)
    assert typical is not None
    assert typical.sample.prompt == "d"
    assert highlights.typical(ROWS[1:2]) is not None
