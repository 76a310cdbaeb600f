"""Metrics of each sweep point, and of each setting over its seeds."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from rlhfctl.errors import CheckpointError
from rlhfctl.evaluation.intervals import Interval, paired_bootstrap_mean
from rlhfctl.results.gates import check_gates, parse_gates
from rlhfctl.run.directory import SCORES_FILE
from rlhfctl.run.manifest import Manifest
from rlhfctl.stage_table import EVALUATION, PPO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.directory import RunDirectory

Metrics = dict[str, Any]

SEED = "seed"
BOOTSTRAP_SEED = 0
TRUE_REWARDS = ("gold", "held_out_rm")
_OF_POLICY = ("kl", "proxy", "gold", "length", "eos_share", "repetition", "distinct")
_OF_PAIR = (
    *("win_rate", "gold_win_rate", "proxy_win_rate", "gold_gain", "proxy_gain"),
    *("gold_length_controlled_win_rate", "proxy_length_controlled_win_rate"),
)
_PPO_METRICS = ("best", "stopped_early", "last_below_best")


def point_metrics(directory: RunDirectory) -> Metrics:
    """Return the selected metrics of a run whose evaluation is recorded; empty without one.

    Metrics that the run does not have are left out. `NAME_low` and `NAME_high` come with `NAME`.
    """
    try:
        stages = Manifest.load(directory.manifest).stages
    except CheckpointError:
        return {}
    if EVALUATION.name not in stages:
        return {}
    evaluation = stages[EVALUATION.name].metrics
    policies = evaluation.get("policies", {})
    metrics = _with_ends(policies.get("ppo", {}), _OF_POLICY) | _with_ends(evaluation, _OF_PAIR)
    metrics |= {name: evaluation[name] for name in ("judge", "prompts") if name in evaluation}
    metrics["sft"] = _with_ends(policies.get("sft", {}), _OF_POLICY)
    true_reward = _scores(directory).get("ppo", {}).get("held_out_rm")
    if true_reward:
        metrics |= bootstrap_mean(true_reward).metrics("true_reward")
    judges = {
        name: _with_ends(judge, ("win_rate", "length_controlled_win_rate"))
        for name, judge in evaluation.get("judges", {}).items()
    }
    if judges:
        metrics["judges"] = judges
    over_optimisation = (
        stages[PPO.name].metrics.get("over_optimisation") if PPO.name in stages else None
    )
    if over_optimisation:
        metrics |= {
            name: over_optimisation[name] for name in _PPO_METRICS if name in over_optimisation
        }
        metrics["alarms"] = [_alarm(alarm) for alarm in over_optimisation.get("alarms", [])]
    return metrics


def gates_kept(recipe: Recipe, directory: RunDirectory) -> bool:
    """Return whether a run's metrics pass the gates of its recipe."""
    record = Manifest.load(directory.manifest).stages[EVALUATION.name]
    return all(
        gate.passed for gate in check_gates(parse_gates(recipe.evaluation.gates), record.metrics)
    )


def gains(directory: RunDirectory) -> dict[str, Any]:
    """Return PPO's gain over SFT per held-out prompt, in each available true reward.

    Returns:
        ``{"prompts": digest, "gold" or "held_out_rm": [prompts]}``; empty without a
        true reward or saved scores.
    """
    scores = _scores(directory)
    sft, ppo = (scores.get(name, {}) for name in ("sft", "ppo"))
    differences = {
        name: (np.asarray(ppo[name]) - np.asarray(sft[name])).tolist()
        for name in TRUE_REWARDS
        if name in ppo and name in sft
    }
    return {"prompts": scores["prompts"], **differences} if differences else {}


def bootstrap_mean(values: Sequence[float]) -> Interval:
    """Return a mean over prompts with its 95 % bootstrap CI, of zero width for one prompt."""
    if len(values) < 2:
        return Interval(values[0], values[0], values[0])
    return paired_bootstrap_mean(values, BOOTSTRAP_SEED)


def groups_of(settings: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], list[int]]]:
    """Group the points that differ only in their seed, ordered by first member.

    Returns:
        Settings without the seed, and the indices of their points.
    """
    groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
    for index, point in enumerate(settings):
        rest = {key: value for key, value in point.items() if key != SEED}
        groups.setdefault(json.dumps(rest, sort_keys=True), (rest, []))[1].append(index)
    return list(groups.values())


def means(points: Sequence[Metrics]) -> Metrics:
    """Return the mean over seeds of every number common to all, with a 95 % CI between seeds.

    The interval is Student's, mean +- t(k - 1) s / sqrt(k) over the k seeds: it covers variation
    between training runs as well as between prompts. A single seed has no CI. The seeds' own CI
    ends and non-numeric values are omitted.
    """
    values: defaultdict[str, list[float]] = defaultdict(list)
    for metrics in points:
        for name, value in metrics.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and not name.endswith(("_low", "_high")):
                values[name].append(float(value))
    averages: Metrics = {}
    for name, per_seed in values.items():
        if len(per_seed) != len(points):
            continue
        averages[name] = float(np.mean(per_seed))
        if len(per_seed) > 1:
            half = float(stats.t.ppf(0.975, len(per_seed) - 1) * np.std(per_seed, ddof=1))
            half /= math.sqrt(len(per_seed))
            averages |= {
                f"{name}_low": averages[name] - half,
                f"{name}_high": averages[name] + half,
            }
    return averages


def mean_best_of_n(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return best-of-n curves averaged over seeds by `means`; a single curve is unchanged."""
    if len(curves) == 1:
        return dict(curves[0])
    shared = [
        name for name in ("proxy", "gold", "true_reward") if all(name in curve for curve in curves)
    ]
    merged: dict[str, Any] = {}
    for name in shared:
        merged[name] = [
            {"n": rows[0]["n"], "kl": rows[0]["kl"], **means([{"value": r["value"]} for r in rows])}
            for rows in zip(*(curve[name] for curve in curves), strict=True)
        ]
    return {**merged, "samples": curves[0]["samples"], "prompts": curves[0]["prompts"]}


def _scores(directory: RunDirectory) -> dict[str, Any]:
    """Return scores per policy and the prompts' digest from `eval/scores.json`, if it exists."""
    path = directory.stage(EVALUATION.folder) / SCORES_FILE
    if not path.is_file():
        return {}
    scores = json.loads(path.read_text(encoding="utf-8"))
    return {"prompts": scores["prompts"], **scores["policies"]}


def _with_ends(metrics: Mapping[str, Any], names: Sequence[str]) -> Metrics:
    keys = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    return {name: metrics[name] for name in keys if metrics.get(name) is not None}


def _alarm(alarm: Mapping[str, Any]) -> dict[str, Any]:
    return {key: alarm[key] for key in ("name", "step", "message") if key in alarm}
