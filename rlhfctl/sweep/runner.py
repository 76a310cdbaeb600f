"""Run sweep jobs as parallel child processes that end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Protocol

from rlhfctl.errors import CheckpointError, ExitCode, LockedError
from rlhfctl.json_text import parse_json
from rlhfctl.pipeline import is_up_to_date
from rlhfctl.recipe.load import dump_recipe
from rlhfctl.results.io import from_json
from rlhfctl.results.sweep import RunError
from rlhfctl.run import lifeline, stop
from rlhfctl.run.directory import LOGS_FOLDER, RunDirectory
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rlhfctl.sweep.plan import Job

_POLL = 0.1  # seconds
_GRACE_PERIOD = 60.0
"""Seconds for a run to save its state after a signal."""
_TAIL = 4096


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        status: `done`, `skipped` if it was already up to date, or `failed`.
        seconds: Wall-clock time.
        error: Error of a failed job; None without one.
    """

    status: str
    seconds: float = 0.0
    error: RunError | None = None


class Observer(Protocol):
    """Receives the events of sweep jobs."""

    def waiting(self, job: Job, reason: str) -> None:
        """Report once that a job cannot start yet."""

    def began(self, job: Job) -> None:
        """Report that a job's process has started."""

    def tick(self, lines: Mapping[str, str]) -> None:
        """Report the last log line of each running job."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Report how a job ended."""


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    began: float


class Runner:
    """Runs jobs in the sweep's folder, up to `at_once` in parallel.

    Attributes:
        outcomes: Outcome per ended job, by name.
    """

    def __init__(
        self,
        root: Path,
        at_once: int,
        observer: Observer,
        ended: Callable[[], object],
        *,
        force: bool = False,
    ) -> None:
        """Configure the runner.

        Args:
            root: The sweep's folder, with a folder `logs`.
            at_once: Parallel processes; several share the CPU threads equally.
            observer: Receives every job event.
            ended: Called after each job.
            force: Re-run finished jobs.
        """
        self.root = root
        self.at_once = at_once
        self.observer = observer
        self.ended = ended
        self.force = force
        self.outcomes: dict[str, Outcome] = {}
        self._children: list[_Child] = []
        self._reported_waiting: set[str] = set()

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs, each after its dependencies; a failed job does not stop the others.

        Raises:
            Stopped: A signal to stop was received; it was passed on to the processes first.
        """
        waiting = list(jobs)
        with stop.handled(), self._ending_children():
            while waiting or self._children:
                self._reap()
                for job in list(waiting):
                    if self._ends_without_process(job):
                        waiting.remove(job)
                    elif len(self._children) < self.at_once and self._may_begin(job):
                        waiting.remove(job)
                        self._begin(job)
                self.observer.tick(
                    {c.job.name: last_line(self._log(c.job)) for c in self._children}
                )
                if self._children or waiting:
                    time.sleep(_POLL)

    def _ends_without_process(self, job: Job) -> bool:
        """Return whether a job ends without a process: it is up to date, or a dependency failed."""
        failed = [(name, error) for name in job.needs if (error := self._error(name))]
        if failed:
            name, cause = failed[0]
            hint = f"see {self.root / LOGS_FOLDER / name}.log"
            message = f"{name}, a dependency, failed: {cause.message}"
            self._end(job, Outcome("failed", 0.0, replace(cause, message=message, hint=hint)))
            return True
        if self.force or not self._ready(job) or not self._is_up_to_date(job):
            return False
        self._end(job, Outcome("skipped"))
        return True

    def _is_up_to_date(self, job: Job) -> bool:
        try:
            return is_up_to_date(job.recipe, RunDirectory(self.root / job.name), job.stages)
        except CheckpointError:
            return False  # its own process reports the damage

    def _error(self, name: str) -> RunError | None:
        """Return the error of a job; None unless it has failed."""
        return self.outcomes[name].error if name in self.outcomes else None

    def _ready(self, job: Job) -> bool:
        return all(name in self.outcomes for name in job.needs)

    def _may_begin(self, job: Job) -> bool:
        """Return whether a job's dependencies are done and its folder is not locked.

        Processes of a killed sweep hold the lock until they have ended, seconds later.
        """
        if not self._ready(job):
            return False
        directory = RunDirectory(self.root / job.name)
        directory.create()
        try:
            with directory.lock():
                return True
        except LockedError as error:
            if job.name not in self._reported_waiting:
                self._reported_waiting.add(job.name)
                self.observer.waiting(job, error.what)
            return False

    def _begin(self, job: Job) -> None:
        directory = RunDirectory(self.root / job.name)
        write_atomic(directory.recipe, dump_recipe(job.recipe))
        arguments = [job.command, str(directory.recipe), "--run", job.name]
        arguments += ["--runs-dir", str(self.root), "--json", *(["--force"] if self.force else [])]
        command = [sys.executable, "-m", "rlhfctl", *arguments]
        with self._log(job).open("ab") as log, self._answer(job).open("wb") as answer:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=log,
                env=self._environment(),
                start_new_session=True,  # this process forwards Ctrl-C, once
            )
        self._children.append(_Child(job, process, time.monotonic()))
        self.observer.began(job)

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **lifeline.for_child()}
        if self.at_once == 1:
            return environment
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = max(1, (cores or 1) // self.at_once)
        return {"OMP_NUM_THREADS": str(threads), **environment}

    def _reap(self) -> None:
        for child in list(self._children):
            code = child.process.poll()
            if code is not None:
                self._children.remove(child)
                seconds = round(time.monotonic() - child.began, 3)
                # A failed gate is not a failed run: its metrics exist.
                if code in {ExitCode.DONE, ExitCode.GATE_FAILED}:
                    self._end(child.job, Outcome("done", seconds))
                else:
                    self._end(child.job, Outcome("failed", seconds, self._why(child.job, code)))

    def _why(self, job: Job, code: int) -> RunError:
        answer = self._answer(job)
        try:
            return from_json(RunError, parse_json(answer.read_bytes())["errors"][0], str(answer))
        except (ValueError, LookupError, TypeError, CheckpointError):
            how = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
            return RunError(
                exit_code=int(ExitCode.ENVIRONMENT if code < 0 else code),
                type="EnvironmentFault",
                message=f"its process {how} without an error message",
                where=str(self._log(job)),
                hint="If it ran out of memory, try fewer --jobs.",
            )

    def _end(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job.name] = outcome
        self.observer.ended(job, outcome)
        self.ended()

    def _log(self, job: Job) -> Path:
        return self.root / LOGS_FOLDER / f"{job.name}.log"

    def _answer(self, job: Job) -> Path:
        return self.root / LOGS_FOLDER / f"{job.name}.json"

    @contextmanager
    def _ending_children(self) -> Iterator[None]:
        """Stop the child processes on exit, with time to save their state."""
        try:
            yield
        except BaseException as error:
            interrupted = False
            if isinstance(error, stop.Stopped):
                stop.begin(error.number)
                interrupted = error.number == signal.SIGINT
            signal_number = signal.SIGINT if interrupted else signal.SIGTERM
            for child in self._children:
                child.process.send_signal(signal_number)
            limit = time.monotonic() + _GRACE_PERIOD
            try:
                for child in self._children:
                    child.process.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass  # killed below
            raise
        finally:
            for child in self._children:
                if child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()


def last_line(log: Path) -> str:
    """Return the last line of a log; empty if there is none."""
    file: IO[bytes]
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return lines[-1].strip() if lines else ""
