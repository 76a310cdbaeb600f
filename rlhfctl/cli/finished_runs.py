"""The run that a command on finished runs works with."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.cli.resolve import newest_run
from rlhfctl.errors import UsageError
from rlhfctl.run.directory import RECIPE_FILE
from rlhfctl.run.log_capture import capture_logs

if TYPE_CHECKING:
    from rlhfctl.pipeline.finished import FinishedRun


def run_folder(name: str | None, runs_dir: Path) -> Path:
    """Return the folder of a run, by name or by path; None: of the newest run.

    Raises:
        UsageError: There is no such run, or there are no runs.
    """
    if name is None:
        newest = newest_run(runs_dir)
        if newest is None:
            raise UsageError(
                "no runs found",
                where=str(runs_dir),
                hint="start one with `rlhfctl run`, or set --runs-dir",
            )
        return newest.root
    for root in (runs_dir / name, Path(name)):
        if (root / RECIPE_FILE).is_file():
            return root
    raise UsageError(
        "run not found",
        where=name,
        hint=f"pass the name of a folder in {runs_dir}, or the path of a run folder",
    )


def open_run(name: str | None, runs_dir: Path) -> FinishedRun:
    """Return a finished run, by name or by path; None: the newest run.

    Raises:
        UsageError: There is no such run.
        CheckpointError: Its manifest is damaged.
    """
    from rlhfctl.pipeline.finished import FinishedRun

    return FinishedRun.open(run_folder(name, runs_dir))


def library_output(run: FinishedRun, command: str) -> AbstractContextManager[None]:
    """Return a context that redirects the output of libraries to the run's log file.

    A run folder that cannot be written to is read all the same; libraries then write to stderr.
    """
    directory = run.directory
    if not os.access(directory.logs, os.W_OK):
        return nullcontext()
    return capture_logs(directory.log_file, f"rlhfctl {command}")
