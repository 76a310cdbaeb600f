"""Run a comparison of methods and rewrite `methods.json` after each run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.errors import CheckpointError
from rlhfctl.report.sections.cost import peak_memory
from rlhfctl.report.sources import read_run
from rlhfctl.results.io import read_result, to_json
from rlhfctl.results.methods import MethodRun, MethodsResult, MethodSummary
from rlhfctl.results.scores import PromptScores
from rlhfctl.results.sweep import RunError
from rlhfctl.run.directory import METHODS_FILE, SCORES_FILE, RunDirectory
from rlhfctl.run.files import write_json
from rlhfctl.stage_table import DPO, EVALUATION, PPO
from rlhfctl.sweep.frontier import (
    common_kl,
    in_order,
    mean_frontier,
    of_best_of_n,
    of_evaluation,
    of_held_out,
    over_optimisation,
    value_at,
)
from rlhfctl.sweep.methods_plan import ESTIMATORS
from rlhfctl.sweep.metrics import mean_over_seeds
from rlhfctl.sweep.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.results.estimate import Estimate
    from rlhfctl.sweep.methods_plan import MethodJobs, MethodsPlan
    from rlhfctl.sweep.runner import Observer


def run_methods(
    plan: MethodsPlan,
    root: Path,
    recipe: str,
    at_once: int,
    observer: Observer,
    *,
    kl: float | None = None,
    force: bool = False,
) -> MethodsResult:
    """Run the unfinished jobs and return the final contents of `methods.json`.

    Args:
        plan: All runs.
        root: Folder of the comparison; created if missing.
        recipe: Recipe file, as named by the user.
        at_once: Parallel processes.
        observer: Receives every job event.
        kl: KL to compare at; None: the largest that every finished run reaches.
        force: Re-run finished jobs.

    Raises:
        LockedError: Another comparison is running in this folder.
        EnvironmentFault: The folder cannot be written to.
        Stopped: A signal to stop was received; finished work is saved.
    """
    directory = RunDirectory(root)
    directory.create()
    with directory.lock():
        results = _Results(plan, root, recipe, kl)
        runner = Runner(root, at_once, observer, lambda: results.write(runner), force=force)
        results.write(runner)
        runner.run(plan.jobs)
        return results.write(runner)


def exit_code(result: MethodsResult) -> int:
    """Return 0 if every run is done, else the code of the first failed one."""
    return next((run.error.exit_code for run in result.runs if run.error), 0)


@dataclass(frozen=True)
class _Results:
    plan: MethodsPlan
    root: Path
    recipe: str
    kl: float | None

    def write(self, runner: Runner) -> MethodsResult:
        """Write and return the results so far."""
        runs = [self._run(jobs, runner) for jobs in self.plan.methods]
        finished = [run for run in runs if run.status == "done"]
        kl = self.kl or common_kl([run.frontier for run in finished])
        names = list(dict.fromkeys(run.method for run in finished))
        result = MethodsResult(
            recipe=self.recipe,
            judge=self.plan.judge,
            methods=[
                summary(name, [run for run in finished if run.method == name], kl) for name in names
            ],
            runs=runs,
            kl=kl,
        )
        write_json(self.root / METHODS_FILE, to_json(result))
        return result

    def _run(self, jobs: MethodJobs, runner: Runner) -> MethodRun:
        """Return one method with one seed, as far as it has come."""
        outcomes = [runner.outcomes.get(job.name) for job in jobs.jobs]
        run = MethodRun(jobs.method, jobs.seed, [job.name for job in jobs.jobs], "waiting")
        errors = [outcome.error for outcome in outcomes if outcome and outcome.error]
        if errors:
            return replace(run, status="failed", error=errors[0])
        if None in outcomes:
            return run
        try:
            return self._measured(jobs, run)
        except (CheckpointError, KeyError) as error:
            # Results of another version of rlhfctl must not end the others.
            where = error.where if isinstance(error, CheckpointError) else str(self.root)
            fault = RunError(4, type(error).__name__, str(error), where, "re-run with --force")
            return replace(run, status="failed", error=fault)

    def _measured(self, jobs: MethodJobs, run: MethodRun) -> MethodRun:
        """Return the frontier, result and cost of a finished method."""
        evaluations = [read_run(self.root / job.name) for job in jobs.evaluations]
        run = self._with_cost(jobs, run)
        if jobs.method == "best_of_n":
            evaluation = evaluations[0].evaluation
            if evaluation is None or evaluation.best_of_n is None:
                raise KeyError("the evaluation has no best-of-n")
            frontier = of_best_of_n(evaluation.best_of_n, self.plan.judge)
            return replace(run, frontier=frontier, result=frontier[-1])
        results = [
            of_evaluation(self._scores(job.name), self.plan.judge, _name(jobs, index))
            for index, job in enumerate(jobs.evaluations)
        ]
        if jobs.method not in ESTIMATORS:
            return replace(run, frontier=in_order(results), result=results[0])
        facts = evaluations[0]
        alarms = facts.over_optimisation.alarms if facts.over_optimisation else []
        return replace(
            run,
            frontier=of_held_out(facts.held_out),
            result=results[0],
            alarms=list(dict.fromkeys(alarm.name for alarm in alarms)),
        )

    def _with_cost(self, jobs: MethodJobs, run: MethodRun) -> MethodRun:
        """Return a run with time and memory of its own stage, and with the shared stages' time."""
        seconds, memory = 0.0, None
        if jobs.training:
            stage = PPO if jobs.method in ESTIMATORS else DPO
            trained = read_run(self.root / jobs.training[0].name)
            seconds = trained.records[stage.name].seconds
            memory = peak_memory(trained.curves[stage.name])
        shared = [read_run(self.root / name) for name in jobs.needs]
        total = seconds + sum(
            record.seconds for facts in shared for record in facts.records.values()
        )
        return replace(
            run,
            status="done",
            seconds=round(seconds, 3),
            total_seconds=round(total, 3),
            memory_bytes=memory,
        )

    def _scores(self, name: str) -> PromptScores:
        folder = RunDirectory(self.root / name).stage(EVALUATION.folder)
        return read_result(PromptScores, folder / SCORES_FILE)


def summary(method: str, runs: Sequence[MethodRun], kl: float | None) -> MethodSummary:
    """Return the means of a method's finished runs.

    Args:
        method: Its name.
        runs: One finished run per seed.
        kl: KL to compare at.
    """

    def mean(values: Sequence[float | None]) -> Estimate | None:
        """Return the mean over seeds; None unless every seed has a value."""
        measured = [value for value in values if value is not None]
        return mean_over_seeds(measured) if measured and len(measured) == len(values) else None

    def result(value: str) -> Estimate | None:
        return mean([getattr(run.result, value, None) for run in runs])

    at_kl: tuple[Estimate | None, Estimate | None] = (None, None)
    if kl is not None:
        at_kl = (
            mean([value_at(run.frontier, kl, "win_rate") for run in runs]),
            mean([value_at(run.frontier, kl, "gain") for run in runs]),
        )
    return MethodSummary(
        method=method,
        seeds=[run.seed for run in runs],
        kl=result("kl"),
        win_rate=result("win_rate"),
        gain=result("gain"),
        proxy_gain=result("proxy_gain"),
        win_rate_at_kl=at_kl[0],
        gain_at_kl=at_kl[1],
        over_optimisation=mean([over_optimisation(run.frontier) for run in runs]),
        seconds=mean([run.seconds for run in runs]),
        total_seconds=mean([run.total_seconds for run in runs]),
        memory_bytes=mean([run.memory_bytes for run in runs]),
        frontier=mean_frontier([run.frontier for run in runs]),
    )


def _name(jobs: MethodJobs, index: int) -> str:
    if jobs.method != "dpo":
        return "result"
    return f"beta = {jobs.training[index].recipe.dpo.beta:.3g}"
