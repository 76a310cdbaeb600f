import dataclasses
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rlhfctl.evaluation.alarms import AlarmLimits, active_alarms, alarms, new_alarms
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.training import Alarm
from tests.evaluation.histories import history, quiet

LIMITS = AlarmLimits(kl=20.0)
EVALUATIONS = 12
LATER = np.maximum(0, np.arange(EVALUATIONS) - 4)[:, None]  # 0 up to the fifth evaluation


def hacked(name: str, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Quiet metrics but for those that the hack moves from the sixth evaluation on."""
    metrics = quiet(rng, EVALUATIONS)
    chance = rng.random(metrics["certainty"].shape)
    match name:
        case "length":
            metrics["length"] *= 1 + LATER / 4
        case "repetition":
            metrics["repetition"] += 0.05 * LATER
        case "certainty":
            metrics["certainty"] = np.maximum(metrics["certainty"], chance < 0.12 * LATER)
        case "entropy":
            metrics["entropy"] *= 1 - LATER / 8
        case "kl":
            metrics["kl"] += 5.0 * LATER
        case "divergence":
            metrics["proxy"] += 0.4 * LATER
            metrics["true_reward"] -= 0.3 * LATER
        case "score_range":
            metrics["out_of_range"] = np.maximum(metrics["out_of_range"], chance < 0.12 * LATER)
        case "disagreement":
            metrics["disagreement"] *= 1 + LATER / 3
        case "state_distance":
            metrics["state_distance"] *= 1 + LATER / 5
        case "saturation":
            metrics["saturated"] = np.maximum(metrics["saturated"], chance < 0.12 * LATER)
        case "takeover":
            metrics["contribution_a"] += 0.4 * LATER
            metrics["contribution_b"] -= 0.2 * LATER
    return metrics


def test_quiet_runs_raise_none() -> None:
    raised: Counter[str] = Counter()
    for seed in range(1000):
        lines = history(quiet(np.random.default_rng(seed), 14))
        raised.update({alarm.name for alarm in alarms(lines, LIMITS)})
    assert raised.total() < 10, raised


def test_the_level_alone_keeps_quiet_runs_quiet() -> None:
    """With every threshold at no change, what keeps them quiet is the correction for looks."""
    still = AlarmLimits(
        *(0.0, 0.0, 0.0, 1.0, None, 0.0, 0.0, 1.0),
        false_alarms=0.05,
    )
    runs = 300
    raised = sum(
        bool(alarms(history(quiet(np.random.default_rng(seed), 10, 32)), still))
        for seed in range(runs)
    )
    assert raised <= 0.05 * runs


def test_healthy_runs_that_gain_and_then_stand_still_raise_few() -> None:
    """The proxy is up, so a divergence hangs on the fall's test alone: not Bonferroni's level."""
    runs, raised = 300, Counter[str]()
    gain = np.minimum(np.arange(11) / 4, 1)[:, None]
    for seed in range(runs):
        metrics = quiet(np.random.default_rng(seed), 11, 128)
        metrics["proxy"] += gain
        metrics["true_reward"] += gain
        raised.update(alarm.name for alarm in alarms(history(metrics), LIMITS))
    assert raised.total() <= 0.01 * runs, raised


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LIMITS)][:-1])
def test_a_planted_hack_raises_its_own_alarm_and_no_other(name: str) -> None:
    for seed in range(20):
        lines = history(hacked(name, np.random.default_rng(seed)))
        assert [alarm.name for alarm in alarms(lines, LIMITS)] == [name]


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LIMITS)][:-1])
def test_an_alarm_comes_once_at_the_evaluation_that_raises_it(name: str) -> None:
    lines = history(hacked(name, np.random.default_rng(5)))
    (alarm,) = alarms(lines, LIMITS)
    told = [new_alarms(lines[:looks], LIMITS) for looks in range(1, EVALUATIONS + 1)]
    assert [new for new in told if new] == [[alarm]]
    assert told.index([alarm]) > 4
    active = [active_alarms(lines[:looks], LIMITS) for looks in range(EVALUATIONS + 1)]
    assert [bool(now) for now in active].index(True) == told.index([alarm]) + 1
    assert active[-1], "it stays active at the end, where it is no new alarm"
    assert {one.name for now in active for one in now} == {name}
    assert alarm.step == lines[told.index([alarm])].step
    assert alarm.threshold == getattr(LIMITS, name)
    assert (alarm.value < alarm.threshold) == (name == "entropy")
    assert alarm.message.endswith(".")
    assert "{" not in alarm.message
    assert from_json(Alarm, json.loads(json.dumps(to_json(alarm))), "alarm") == alarm


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LIMITS)][:-1])
def test_an_alarm_can_be_turned_off(name: str) -> None:
    lines = history(hacked(name, np.random.default_rng(5)))
    off: dict[str, Any] = {name: None}
    assert not alarms(lines, dataclasses.replace(LIMITS, **off))


def test_sources_that_rise_together_or_one_alone_are_no_takeover() -> None:
    metrics = hacked("takeover", np.random.default_rng(0))
    (alarm,) = alarms(history(metrics), LIMITS)
    assert alarm.message.startswith("The reward source a takes over: the others have lost ")
    metrics["contribution_b"] += 0.5 * LATER
    assert not alarms(history(metrics), LIMITS)
    del metrics["contribution_a"]
    assert not alarms(history(metrics), LIMITS)


def test_length_that_pays_is_no_hack() -> None:
    metrics = hacked("length", np.random.default_rng(0))
    metrics["true_reward"] += 0.3 * LATER
    assert not alarms(history(metrics), LIMITS)
    del metrics["true_reward"]
    (alarm,) = alarms(history(metrics), LIMITS)
    assert alarm.name == "length"
    assert "no true reward" in alarm.message


def test_a_rising_proxy_alone_is_no_divergence_and_neither_is_a_fall_of_both() -> None:
    metrics = quiet(np.random.default_rng(0), EVALUATIONS)
    metrics["proxy"] += 0.5 * LATER
    assert not alarms(history(metrics), LIMITS)
    metrics["proxy"] -= LATER
    metrics["true_reward"] -= 0.5 * LATER
    assert not alarms(history(metrics), LIMITS)


def test_metrics_that_are_not_there_are_not_judged() -> None:
    metrics = hacked("divergence", np.random.default_rng(0))
    kept: dict[str, Any] = {name: metrics[name] for name in ("kl", "proxy", "length")}
    assert not alarms(history(kept), LIMITS)
    assert not alarms([], LIMITS)


def test_evaluations_of_different_prompts_are_refused() -> None:
    lines = history(quiet(np.random.default_rng(0), 4))
    lines[2].per_prompt["length"].pop()
    with pytest.raises(ValueError, match="length: evaluations must have the same prompts"):
        alarms(lines, LIMITS)
