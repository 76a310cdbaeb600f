"""Run a sweep and rewrite `sweep.json` after each run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.recipe.view import stage_part
from rlhfctl.run.directory import SWEEP_FILE, RunDirectory
from rlhfctl.run.files import write_json
from rlhfctl.run.manifest import Manifest
from rlhfctl.stage_table import EVALUATION
from rlhfctl.sweep.metrics import (
    SEED,
    TRUE_REWARDS,
    bootstrap_mean,
    gains,
    gates_kept,
    groups_of,
    mean_best_of_n,
    means,
    point_metrics,
)
from rlhfctl.sweep.recommend import Candidate, Recommendation, recommend
from rlhfctl.sweep.runner import Outcome, Runner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.sweep.plan import Job, Plan
    from rlhfctl.sweep.runner import Observer

MEASURES = {"gold": "gold reward", "held_out_rm": "the held-out reward model's score"}


def run_sweep(
    plan: Plan, root: Path, recipe: str, at_once: int, observer: Observer, *, force: bool = False
) -> dict[str, Any]:
    """Run the unfinished jobs and return the final contents of `sweep.json`.

    Args:
        plan: All runs.
        root: The sweep's folder; created if missing.
        recipe: Recipe file, as named by the user.
        at_once: Parallel processes.
        observer: Receives every job event.
        force: Re-run finished jobs.

    Raises:
        LockedError: Another sweep is running in this folder.
        EnvironmentFault: The folder cannot be written to.
        Terminated: SIGTERM was received; finished work is saved.
    """
    directory = RunDirectory(root)
    directory.create()
    with directory.lock():
        results = _Results(plan, root, recipe)
        runner = Runner(root, at_once, observer, lambda: results.write(runner), force=force)
        results.write(runner)
        runner.run([*plan.shared, *(point.job for point in plan.points)])
        return results.write(runner, finished=True)


def exit_code(value: dict[str, Any]) -> int:
    """Return 0 if every point is done, else the code of the first failed point."""
    codes = [point["error"]["exit_code"] for point in value["points"] if "error" in point]
    return int(codes[0]) if codes else 0


@dataclass(frozen=True)
class _Results:
    plan: Plan
    root: Path
    recipe: str

    def write(self, runner: Runner, *, finished: bool = False) -> dict[str, Any]:
        """Write and return the results so far; the recommendation is made at the end."""
        points = [
            {"settings": point.settings, **self._entry(runner, point.job)}
            for point in self.plan.points
        ]
        keys = list(self.plan.points[0].settings)
        value: dict[str, Any] = {"recipe": self.recipe, "keys": keys, "points": points}
        if SEED in keys and len(keys) > 1:
            value["groups"] = self._groups(points)
        value["shared"] = [
            {**self._entry(runner, job), "points": self.plan.sharers(job)}
            for job in self.plan.shared
        ]
        best_of_n = self._best_of_n()
        if best_of_n:
            value["best_of_n"] = best_of_n
        value["recommended"] = self._recommended(points) if finished else None
        write_json(self.root / SWEEP_FILE, value)
        return value

    def _entry(self, runner: Runner, job: Job) -> dict[str, Any]:
        outcome = runner.outcomes.get(job.name, Outcome("waiting"))
        status = "done" if outcome.status == "skipped" else outcome.status
        entry: dict[str, Any] = {"run": job.name, "status": status}
        if outcome.error is not None:
            entry["error"] = outcome.error
        if status == "done" and job.command == "run":
            directory = RunDirectory(self.root / job.name)
            stages = Manifest.load(directory.manifest).stages.values()
            entry["seconds"] = round(sum(stage.seconds for stage in stages), 3)
            if not gates_kept(job.recipe, directory):
                entry["status"] = "gate_failed"
            entry["metrics"] = point_metrics(directory)
        return entry

    def _groups(self, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "settings": settings,
                "points": members,
                "metrics": means([points[index].get("metrics", {}) for index in members]),
            }
            for settings, members in groups_of([point["settings"] for point in points])
            if all("metrics" in points[index] for index in members)
        ]

    def _best_of_n(self) -> dict[str, Any]:
        """Return best-of-n of the SFT policy, if all points share it up to the seed."""
        curves: list[dict[str, Any]] = []
        parts: set[str] = set()
        for job in self.plan.shared:
            if job.command != EVALUATION.command:
                continue
            record = Manifest.load(RunDirectory(self.root / job.name).manifest).stages.get(
                EVALUATION.name
            )
            if record is not None and "best_of_n" in record.metrics:
                curves.append(record.metrics["best_of_n"])
                parts.add(_without_seed(job))
        return mean_best_of_n(curves) if len(parts) == 1 else {}

    def _recommended(self, points: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the recommended setting; None without a true reward."""
        groups = [
            (settings, members)
            for settings, members in groups_of([point["settings"] for point in points])
            if all(points[index]["status"] == "done" for index in members)
        ]
        runs = {index: gains(self._directory(index)) for _, members in groups for index in members}
        for name in TRUE_REWARDS:
            if not groups or not all(name in run for run in runs.values()):
                continue
            candidates = [
                _candidate(settings, members, points, runs, name) for settings, members in groups
            ]
            taken = recommend(candidates, MEASURES[name])
            if taken is not None:
                return _entry_of(taken, *groups[taken.number])
        return None

    def _directory(self, index: int) -> RunDirectory:
        return RunDirectory(self.root / self.plan.points[index].job.name)


def _candidate(
    settings: dict[str, Any],
    members: Sequence[int],
    points: Sequence[dict[str, Any]],
    runs: dict[int, dict[str, Any]],
    name: str,
) -> Candidate:
    prompt_gains = [gain for index in members for gain in runs[index][name]]
    mean = bootstrap_mean(prompt_gains)
    label = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    kl = sum(points[index]["metrics"]["kl"] for index in members) / len(members)
    prompts = tuple(
        f"{points[index]['settings'].get(SEED)} {runs[index]['prompts']}" for index in members
    )
    return Candidate(
        label or "any seed", kl, mean.value, mean.low, mean.high, prompt_gains, prompts
    )


def _entry_of(
    taken: Recommendation, settings: dict[str, Any], members: Sequence[int]
) -> dict[str, Any]:
    return {"point": members[0], "points": members, "settings": settings, "why": taken.why}


def _without_seed(job: Job) -> str:
    part = stage_part(job.recipe, EVALUATION)
    del part["seed"]
    part["evaluation"] = {**part["evaluation"], "sft": None, "rm": None}
    return json.dumps(part, sort_keys=True)
