"""Sections of metrics that a run has only where they were asked for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhfctl.report.blocks import Bar, EstimateCell, Note, Plots, Section, Table
from rlhfctl.report.sections import sections
from rlhfctl.report.sections.overoptimisation import over_episodes
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import (
    HarmlessEditResult,
    RewardModelEvaluation,
    SubsetAccuracies,
    TiesScore,
)
from rlhfctl.results.training import Peak
from tests.present import present
from tests.report import shapes

MakeFacts = Callable[..., RunFacts]


def section(facts: RunFacts, title: str) -> Section:
    (found,) = [part for part in sections(facts) if part.title == title]
    return found


def rows(found: Section) -> dict[str, tuple[Any, ...]]:
    """Every row of a section's tables by its heading."""
    tables = [block for block in found.blocks if isinstance(block, Table)]
    return {str(row[0]): row[1:] for table in tables for row in table.rows}


def notes(found: Section) -> list[str]:
    return [block.text for block in found.blocks if isinstance(block, Note)]


def lines(found: Section) -> dict[str, Any]:
    pictures = [block for block in found.blocks if isinstance(block, Plots)]
    return {
        f"{plot.title}: {line.label}": line
        for block in pictures
        for plot in block.plots
        for line in plot.lines
    }


def test_a_run_without_them_has_none_of_these_sections(finished_run: Path) -> None:
    found = [part.title for part in sections(read_run(finished_run))]
    assert found == [
        *("Run at a glance", "Evaluation", "Reward model", "Stages", "Curves", "Cost"),
    ]


def test_every_section_is_there_where_its_metrics_are(judged_run: Path) -> None:
    found = [part.title for part in sections(read_run(judged_run))]
    assert found == [
        *("Run at a glance", "Evaluation", "Judges", "Reward model", "Over-optimisation"),
        *("Best of n", "Alignment tax", "Stages", "Curves", "Cost", "Drift", "Annotators"),
    ]


def test_judges_show_win_rates_counts_and_position_bias(judged_run: Path) -> None:
    found = section(read_run(judged_run), "Judges")
    rates, counts, own = [block for block in found.blocks if isinstance(block, Table)]
    assert rates.rows[0][:3] == (
        "held_out_rm (a reward model, against SFT)",
        "0.71",
        "0.65 to 0.77",
    )
    assert rates.rows[1][0] == "held_out_rm, length-controlled"
    assert rates.rows[2][0] == "endpoint (an endpoint, judge-1, against SFT)"
    columns = [column.label for column in counts.columns]
    endpoint = dict(zip(columns, counts.rows[1], strict=True))
    assert (endpoint["Refusals"], endpoint["Unparsable"]) == ("3", "5")
    assert endpoint["First position"] == EstimateCell("0.58", "0.53 to 0.63")
    assert own.rows == [("held_out_rm", "0.73", "0.68 to 0.78", Bar(68, 73, 78), "380")]
    assert notes(found) == ["endpoint: 5 answers could not be read."]


def test_over_optimisation_shows_changes_fits_best_and_alarms(judged_run: Path) -> None:
    found = section(read_run(judged_run), "Over-optimisation")
    assert rows(found)["divergence"][:3] == ("1,792", "−0.600", "0.200")
    assert rows(found)["Gold: peak at √KL"] == ("1.60", "1.50 to 1.70")
    drawn = lines(found)
    gold = drawn["Change against √KL: gold"]
    assert gold.values[0] == 0.0
    assert gold.values[4] == pytest.approx(1.12)
    assert gold.high[4] == pytest.approx(1.22)
    assert drawn["Change against √KL: gold, fitted"].style == "dashed"
    assert "episode 1,024, gold 1.52 (1.42 to 1.62)" in notes(found)[0]
    assert "Certainty words: " in drawn


def test_a_peak_beyond_the_observed_range_has_no_number(make_facts: MakeFacts) -> None:
    def rows_of(peak: Peak) -> dict[str, tuple[Any, ...]]:
        fit = replace(shapes.OVER_OPTIMISATION.fits["true_reward"], peak=peak)
        summary = replace(shapes.OVER_OPTIMISATION, fits={"true_reward": fit})
        facts = make_facts(held_out=shapes.HELD_OUT, over_optimisation=summary)
        return rows(section(facts, "Over-optimisation"))

    extrapolated = Peak(Estimate(9.0, 1.65, 1736.0), shapes.around(2.0), observed=False)
    found = rows_of(extrapolated)
    assert "Gold: no peak within the observed range" in found
    assert "Gold: change at the peak" not in found
    assert "1,736" not in str(found)
    found = rows_of(replace(extrapolated, distance=Estimate(1.8, 1.65, 1736.0), observed=True))
    assert found["Gold: peak at √KL"] == ("1.80", "1.65 to beyond the observed range")
    assert found["Gold: change at the peak"] == ("2.00", "")


def test_acts_on_alarms_are_listed_and_marked_on_the_curve(make_facts: MakeFacts) -> None:
    acts = [shapes.ROLLED_BACK, shapes.STOPPED]
    acted = replace(shapes.OVER_OPTIMISATION, acts=acts)
    facts = make_facts(held_out=shapes.HELD_OUT, over_optimisation=acted)
    found = rows(section(facts, "Over-optimisation"))
    assert found["rollback"] == ("1,792", "divergence, score range", "1,024", "0.050", "0.100")
    assert found["PPO stopped"] == ("2,048", "length", "", "0.100", "0.100")
    marks = over_episodes(facts.held_out, facts.over_optimisation).marks
    # The alarm at 1,792 gives way to what was done about it.
    assert [(mark.kind, mark.position) for mark in marks[1:]] == [("act", 1792.0), ("act", 2048.0)]


def test_harmless_edits_and_ties_are_tables(make_facts: MakeFacts) -> None:
    held_out = present(shapes.REWARD_MODEL.held_out)
    edits = {"case": HarmlessEditResult(Estimate(0.25, 0.2, 0.31), 0.4, 256, "lower case")}
    ties = TiesScore(0.61, 0.7, 0.8, 0.4, 0.3, 51)
    benchmark = SubsetAccuracies({"Math": held_out.overall}, 0.6, ties=ties)
    model = RewardModelEvaluation(replace(held_out, harmless_edits=edits), benchmark)
    facts = make_facts(evaluation=shapes.evaluation(reward_model=model))
    found = rows(section(facts, "Reward model"))
    assert found["Case: lower case"][0] == "0.25"
    assert found["Case: lower case"][-2:] == ("0.400", "256")
    assert found["RewardBench 2's score"] == ("0.61",)
    assert found["All right above all wrong responses"] == ("0.70",)


def test_evaluations_without_alarms_are_counted(make_facts: MakeFacts) -> None:
    quiet = replace(shapes.OVER_OPTIMISATION, alarms=[])
    facts = make_facts(held_out=shapes.HELD_OUT, over_optimisation=quiet)
    first, best = notes(section(facts, "Over-optimisation"))[:2]
    assert first == "9 held-out evaluations, no alarms."
    assert best.startswith("Best checkpoint: episode 1,024, gold 1.52")


def test_looks_of_a_run_under_way_are_drawn_without_a_summary(make_facts: MakeFacts) -> None:
    drawn = lines(section(make_facts(held_out=shapes.HELD_OUT[:3]), "Over-optimisation"))
    assert len(drawn["Change against √KL: true reward"].values) == 3


def test_a_task_is_worse_only_where_its_interval_leaves_out_zero(judged_run: Path) -> None:
    found = rows(section(read_run(judged_run), "Alignment tax"))
    assert found["perplexity: nats per token"][5] == "worse"
    assert found["closed_questions: accuracy"][5] == ""


def test_best_of_n_stands_beside_ppo(judged_run: Path) -> None:
    found = section(read_run(judged_run), "Best of n")
    assert rows(found)["2"][:2] == ("0.193", EstimateCell("0.583", "0.483 to 0.683"))
    assert lines(found)["Gold against √KL: PPO"].steps == (pytest.approx(6**0.5),)


def test_drift_shows_both_policies_and_phrases(judged_run: Path) -> None:
    found = rows(section(read_run(judged_run), "Drift"))
    assert found["Certainty words"][1] == EstimateCell("0.400", "0.360 to 0.440")
    assert found["Length, 95th percentile"] == ("31", "31")
    assert found["I am sure"] == ("3", "61", "1.40", "6.10")


def test_reward_model_evaluation(judged_run: Path) -> None:
    found = section(read_run(judged_run), "Reward model")
    table = rows(found)
    assert table["Preference margin 1 to 2"][:2] == ("0.80", "0.75 to 0.85")
    assert table["Annotator bruno"][0] == "0.64"
    assert table["Expected calibration error"] == ("0.040", "")
    assert table["Reward model: pairs whose shorter response was chosen"][0] == "0.80"
    assert table["padded with filler"][1] == "rises"
    assert table["words shuffled"][1] == "falls"
    assert table["another's answer"][1] == ""
    assert table["safety"][0] == "0.60"
    observed = lines(found)["Calibration (accuracy against confidence): observed"]
    assert len(observed.low) == 10
    worst, every = [
        block
        for block in found.blocks
        if isinstance(block, Table) and "by annotator" in block.caption
    ]
    assert [row[0] for row in worst.rows] == ["Preference margin 0 to 1", "Annotator bruno"]
    assert (every.folded, len(every.rows)) == ("All 5 slices", 5)


def test_annotators_show_agreement_reliability_and_ceiling(judged_run: Path) -> None:
    found = section(read_run(judged_run), "Annotators")
    assert rows(found)["Krippendorff's alpha"] == ("0.44", "0.39 to 0.49")
    assert rows(found)["Reward model accuracy ceiling"][0] == "0.83"
    assert rows(found)["ada"] == ("0.86", "0.75", EstimateCell("0.70", "0.65 to 0.75"), "500")
    assert notes(found) == ["The reward model's accuracy lies above the annotators' ceiling."]


@pytest.mark.parametrize("part", list(shapes.PARTS))
def test_each_part_of_the_evaluation_stands_alone(make_facts: MakeFacts, part: str) -> None:
    titles = {
        "reward_model": "Reward model",
        "annotators": "Annotators",
        "judges": "Judges",
        "tax": "Alignment tax",
        "drift": "Drift",
        "best_of_n": "Best of n",
    }
    facts = make_facts(shapes.evaluation(**{part: shapes.PARTS[part]}))
    found = {shown.title for shown in sections(facts)}
    assert found == {"Stages", "Evaluation", titles[part]}
