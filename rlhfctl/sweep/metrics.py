"""Metrics of each sweep point, and of each setting over its seeds."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import BestOfN, BestOfNRow, Comparison, EvaluationResult
from rlhfctl.results.gates import check_gates, parse_gates
from rlhfctl.results.io import read_result
from rlhfctl.results.scores import PromptScores
from rlhfctl.results.sweep import JudgeRates, PointMetrics, RaisedAlarm, SettingMetrics
from rlhfctl.results.training import PPOResult
from rlhfctl.run.directory import SCORES_FILE
from rlhfctl.run.manifest import Manifest
from rlhfctl.stage_table import EVALUATION, PPO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.evaluation import PolicyMetrics
    from rlhfctl.results.json_value import JsonValue
    from rlhfctl.run.directory import RunDirectory

SEED = "seed"
BOOTSTRAP_SEED = 0
TRUE_REWARDS = ("gold", "held_out_rm")


def point_metrics(directory: RunDirectory) -> PointMetrics:
    """Return the selected metrics of a run whose evaluation is recorded.

    Raises:
        CheckpointError: Another version of rlhfctl wrote the run's results.
        KeyError: The run is not evaluated.
    """
    stages = Manifest.load(directory.manifest).stages
    evaluation = stages[EVALUATION.name].result(EvaluationResult, directory.manifest)
    ppo = (
        stages[PPO.name].result(PPOResult, directory.manifest).over_optimisation
        if PPO.name in stages
        else None
    )
    policies = {name: _of_policy(policy) for name, policy in evaluation.policies.items()}
    comparison = evaluation.comparison or Comparison()
    scores = _scores(directory)
    policy_scores = scores.policies.get("ppo") if scores else None
    true_reward = policy_scores.held_out_rm if policy_scores else None
    return PointMetrics(
        ppo=dataclasses.replace(
            policies.get("ppo", SettingMetrics()),
            win_rate=comparison.win_rate,
            gold_win_rate=comparison.gold_win_rate,
            proxy_win_rate=comparison.proxy_win_rate,
            gold_gain=comparison.gold_gain,
            proxy_gain=comparison.proxy_gain,
            gold_length_controlled_win_rate=comparison.gold_length_controlled_win_rate,
            proxy_length_controlled_win_rate=comparison.proxy_length_controlled_win_rate,
            true_reward=bootstrap_mean(true_reward) if true_reward else None,
            prompts=Estimate(evaluation.prompts),
        ),
        judge=comparison.judge,
        sft=policies.get("sft", SettingMetrics()),
        judges={
            name: JudgeRates(
                judge.preferences.win_rate, judge.preferences.length_controlled_win_rate
            )
            for name, judge in (evaluation.judges or {}).items()
        }
        or None,
        best=ppo.best if ppo else None,
        stopped_early=ppo.stopped_early if ppo else None,
        last_below_best=ppo.last_below_best if ppo else None,
        alarms=[RaisedAlarm(alarm.name, alarm.step, alarm.message) for alarm in ppo.alarms]
        if ppo
        else None,
    )


def gates_kept(recipe: Recipe, directory: RunDirectory) -> bool:
    """Return whether a run's metrics pass the gates of its recipe.

    Raises:
        CheckpointError: Another version of rlhfctl wrote the run's results.
    """
    record = Manifest.load(directory.manifest).stages[EVALUATION.name]
    result = record.result(EvaluationResult, directory.manifest)
    return all(gate.passed for gate in check_gates(parse_gates(recipe.evaluation.gates), result))


@dataclass(frozen=True)
class Gains:
    """PPO's gains over SFT on the held-out prompts of a run.

    Attributes:
        prompts: Digest of the prompts.
        by_reward: [prompts] gains in each available true reward.
    """

    prompts: str
    by_reward: Mapping[str, Sequence[float]]


def gains(directory: RunDirectory) -> Gains:
    """Return PPO's gain over SFT per held-out prompt; none without a true reward or saved scores.

    Raises:
        CheckpointError: Another version of rlhfctl wrote the run's scores.
    """
    scores = _scores(directory)
    if scores is None or not {"sft", "ppo"} <= scores.policies.keys():
        return Gains("", {})
    sft, ppo = scores.policies["sft"], scores.policies["ppo"]
    pairs = {"gold": (sft.gold, ppo.gold), "held_out_rm": (sft.held_out_rm, ppo.held_out_rm)}
    by_reward: dict[str, Sequence[float]] = {
        name: (np.asarray(after) - np.asarray(before)).tolist()
        for name, (before, after) in pairs.items()
        if before is not None and after is not None
    }
    return Gains(scores.prompts, by_reward)


def bootstrap_mean(values: Sequence[float]) -> Interval:
    """Return a mean over prompts with its 95 % bootstrap CI, of zero width for one prompt."""
    if len(values) < 2:
        return Interval(values[0], values[0], values[0])
    return paired_bootstrap_mean(values, BOOTSTRAP_SEED)


def groups_of(
    settings: Sequence[Mapping[str, JsonValue]],
) -> list[tuple[dict[str, JsonValue], list[int]]]:
    """Group the points that differ only in their seed, ordered by first member.

    Returns:
        Settings without the seed, and the indices of their points.
    """
    groups: dict[str, tuple[dict[str, JsonValue], list[int]]] = {}
    for index, point in enumerate(settings):
        rest = {key: value for key, value in point.items() if key != SEED}
        groups.setdefault(json.dumps(rest, sort_keys=True), (rest, []))[1].append(index)
    return list(groups.values())


def means(points: Sequence[SettingMetrics]) -> SettingMetrics:
    """Return the mean over seeds of every metric common to all, with a 95 % CI between seeds.

    The seeds' own CIs are not used: see `mean_over_seeds`.
    """
    averages = {}
    for field in dataclasses.fields(SettingMetrics):
        estimates = [getattr(point, field.name) for point in points]
        if all(estimate is not None for estimate in estimates):
            averages[field.name] = mean_over_seeds([estimate.value for estimate in estimates])
    return SettingMetrics(**averages)


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value per seed, with a 95 % CI between seeds.

    The interval is Student's, mean +- t(k - 1) s / sqrt(k) over the k seeds: it covers variation
    between training runs as well as between prompts. A single seed has no CI.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1))
    half /= math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def mean_best_of_n(curves: Sequence[BestOfN]) -> BestOfN:
    """Return best-of-n curves averaged over seeds; a single curve is unchanged."""
    first = curves[0]
    if len(curves) == 1:
        return first
    return dataclasses.replace(
        first,
        proxy=_mean_rows([curve.proxy for curve in curves]) or [],
        gold=_mean_rows([curve.gold for curve in curves]),
        true_reward=_mean_rows([curve.true_reward for curve in curves]),
    )


def _mean_rows(curves: Sequence[Sequence[BestOfNRow] | None]) -> list[BestOfNRow] | None:
    """Return the mean curve; None unless all seeds have one."""
    measured = [curve for curve in curves if curve is not None]
    if len(measured) < len(curves):
        return None
    return [
        BestOfNRow(rows[0].n, rows[0].kl, mean_over_seeds([row.value.value for row in rows]))
        for rows in zip(*measured, strict=True)
    ]


def _of_policy(policy: PolicyMetrics) -> SettingMetrics:
    return SettingMetrics(
        kl=policy.kl,
        proxy=policy.proxy,
        gold=policy.gold,
        length=Estimate(policy.length),
        eos_share=Estimate(policy.eos_share),
        repetition=Estimate(policy.repetition),
        distinct=Estimate(policy.distinct),
    )


def _scores(directory: RunDirectory) -> PromptScores | None:
    """Return scores per policy from `eval/scores.json`, if it exists."""
    path = directory.stage(EVALUATION.folder) / SCORES_FILE
    return read_result(PromptScores, path) if path.is_file() else None
