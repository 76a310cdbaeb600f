"""Run a sweep and rewrite `sweep.json` after each run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rlhfctl.errors import CheckpointError
from rlhfctl.recipe.view import stage_part
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import to_json
from rlhfctl.results.sweep import (
    PointMetrics,
    RecommendedSetting,
    RunError,
    SharedRun,
    Status,
    SweepPoint,
    SweepResult,
    SweepSetting,
)
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
from rlhfctl.sweep.recommend import Candidate, recommend
from rlhfctl.sweep.runner import Outcome, Runner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.results.evaluation import BestOfN
    from rlhfctl.results.json_value import JsonValue
    from rlhfctl.sweep.metrics import Gains
    from rlhfctl.sweep.plan import Job, Plan
    from rlhfctl.sweep.runner import Observer

MEASURES = {"gold": "gold reward", "held_out_rm": "the held-out reward model's score"}


def run_sweep(
    plan: Plan, root: Path, recipe: str, at_once: int, observer: Observer, *, force: bool = False
) -> SweepResult:
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
        Stopped: A signal to stop was received; finished work is saved.
    """
    directory = RunDirectory(root)
    directory.create()
    with directory.lock():
        results = _Results(plan, root, recipe)
        runner = Runner(root, at_once, observer, lambda: results.write(runner), force=force)
        results.write(runner)
        runner.run([*plan.shared, *(point.job for point in plan.points)])
        return results.write(runner, finished=True)


def exit_code(result: SweepResult) -> int:
    """Return 0 if every point is done, else the code of the first failed point."""
    return next((point.error.exit_code for point in result.points if point.error), 0)


class _State(NamedTuple):
    """Status of a job, its error, and the time and metrics of a finished run."""

    status: Status
    error: RunError | None = None
    seconds: float | None = None
    metrics: PointMetrics | None = None


@dataclass(frozen=True)
class _Results:
    plan: Plan
    root: Path
    recipe: str

    def write(self, runner: Runner, *, finished: bool = False) -> SweepResult:
        """Write and return the results so far; the recommendation is made at the end."""
        points = [
            SweepPoint(point.settings, point.job.name, *self._state(runner, point.job))
            for point in self.plan.points
        ]
        keys = list(self.plan.points[0].settings)
        shared = []
        for job in self.plan.shared:
            state = self._state(runner, job)
            shared.append(SharedRun(job.name, state.status, self.plan.sharers(job), state.error))
        result = SweepResult(
            recipe=self.recipe,
            keys=keys,
            points=points,
            groups=self._groups(points) if SEED in keys and len(keys) > 1 else None,
            shared=shared,
            best_of_n=self._best_of_n(),
            recommended=self._recommended(points) if finished else None,
        )
        write_json(self.root / SWEEP_FILE, to_json(result))
        return result

    def _state(self, runner: Runner, job: Job) -> _State:
        outcome = runner.outcomes.get(job.name, Outcome("waiting"))
        if outcome.status == "waiting" or outcome.error is not None:
            return _State("failed" if outcome.error else "waiting", outcome.error)
        if job.command != "run":
            return _State("done")
        directory = RunDirectory(self.root / job.name)
        try:
            stages = Manifest.load(directory.manifest).stages.values()
            seconds = round(sum(stage.seconds for stage in stages), 3)
            status: Status = "done" if gates_kept(job.recipe, directory) else "gate_failed"
            return _State(status, None, seconds, point_metrics(directory))
        except CheckpointError as error:
            # One run by another version of rlhfctl must not end the others.
            kind, where = type(error).__name__, error.where
            fault = RunError(int(error.exit_code), kind, error.what, where, error.hint)
            return _State("failed", fault)

    def _groups(self, points: Sequence[SweepPoint]) -> list[SweepSetting]:
        groups = []
        for settings, members in groups_of([point.settings for point in points]):
            metrics = [points[index].metrics for index in members]
            finished = [one.ppo for one in metrics if one is not None]
            if len(finished) == len(members):
                groups.append(SweepSetting(settings, members, means(finished)))
        return groups

    def _best_of_n(self) -> BestOfN | None:
        """Return best-of-n of the SFT policy, if all points share it up to the seed."""
        curves: list[BestOfN] = []
        parts: set[str] = set()
        for job in self.plan.shared:
            if job.command != EVALUATION.command:
                continue
            manifest = RunDirectory(self.root / job.name).manifest
            record = Manifest.load(manifest).stages.get(EVALUATION.name)
            result = record.result(EvaluationResult, manifest) if record else None
            if result is not None and result.best_of_n is not None:
                curves.append(result.best_of_n)
                parts.add(_without_seed(job))
        return mean_best_of_n(curves) if len(parts) == 1 else None

    def _recommended(self, points: Sequence[SweepPoint]) -> RecommendedSetting | None:
        """Return the recommended setting; None without a true reward."""
        groups = [
            (settings, members)
            for settings, members in groups_of([point.settings for point in points])
            if all(points[index].status == "done" for index in members)
        ]
        runs = {index: gains(self._directory(index)) for _, members in groups for index in members}
        for name in TRUE_REWARDS:
            if not groups or not all(name in run.by_reward for run in runs.values()):
                continue
            candidates = [
                _candidate(settings, members, points, runs, name) for settings, members in groups
            ]
            taken = recommend(candidates, MEASURES[name])
            if taken is not None:
                settings, members = groups[taken.number]
                return RecommendedSetting(members[0], members, settings, taken.why)
        return None

    def _directory(self, index: int) -> RunDirectory:
        return RunDirectory(self.root / self.plan.points[index].job.name)


def _candidate(
    settings: Mapping[str, JsonValue],
    members: Sequence[int],
    points: Sequence[SweepPoint],
    runs: Mapping[int, Gains],
    name: str,
) -> Candidate:
    prompt_gains = [gain for index in members for gain in runs[index].by_reward[name]]
    mean = bootstrap_mean(prompt_gains)
    label = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    metrics = [points[index].metrics for index in members]
    kls = [one.ppo.kl.value for one in metrics if one is not None and one.ppo.kl is not None]
    prompts = tuple(
        f"{points[index].settings.get(SEED)} {runs[index].prompts}" for index in members
    )
    return Candidate(
        label or "any seed",
        sum(kls) / len(members),
        mean.value,
        mean.low,
        mean.high,
        prompt_gains,
        prompts,
    )


def _without_seed(job: Job) -> str:
    part = stage_part(job.recipe, EVALUATION)
    del part["seed"]
    part["evaluation"] = part["evaluation"] | dict.fromkeys(("sft", "rm"))
    return json.dumps(part, sort_keys=True)
