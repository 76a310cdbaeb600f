"""The runs in a folder: what each has finished, whether it is running, and its removal."""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from rlhfctl.errors import CheckpointError, RlhfctlError, UsageError
from rlhfctl.run.directory import METHODS_FILE, SWEEP_FILE, RunDirectory
from rlhfctl.run.manifest import Manifest
from rlhfctl.run.progress_file import read_phase
from rlhfctl.stage_table import ALL_STAGES, EVALUATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
State = Literal[
    "running", "finished", "interrupted", "unfinished", "sweep", "comparison", "damaged"
]


@dataclass(frozen=True)
class RunOverview:
    """One run in a list.

    Attributes:
        directory: Run folder.
        state: `running` by a process; `finished` with an evaluation; `interrupted` within a stage
            that can be resumed; `unfinished` otherwise; `sweep` or `comparison` for a folder of runs; `damaged`
            where its manifest cannot be read.
        stage: Stage that is running or interrupted, else the last one that finished; empty if none.
        changed: Time of the last change of its records.
        size: Bytes on disk.
        manifest: The finished stages.
    """

    directory: RunDirectory
    state: State
    stage: str
    changed: datetime
    size: int
    manifest: Manifest


def runs_in(runs_dir: Path) -> list[RunOverview]:
    """Return the runs and sweeps of a directory, the newest first; links are left out."""
    if not runs_dir.is_dir():
        return []
    roots = [root for root in runs_dir.iterdir() if RUN_NAME.fullmatch(root.name) and is_run(root)]
    return sorted(map(overview, roots), key=lambda run: run.changed, reverse=True)


def is_run(root: Path) -> bool:
    """Return whether a folder, and not a link to one, is a run or a sweep."""
    if root.is_symlink() or not root.is_dir():
        return False
    directory = RunDirectory(root)
    marks = (directory.recipe, directory.manifest, directory.log_file, *_files_of_runs(root))
    return any(mark.is_file() for mark in marks)


def _files_of_runs(root: Path) -> tuple[Path, ...]:
    """Return the files that mark a folder of runs."""
    return (root / SWEEP_FILE, root / METHODS_FILE)


def overview(root: Path) -> RunOverview:
    """Return the state of one run folder."""
    directory = RunDirectory(root)
    damaged = False
    try:
        manifest = Manifest.load(directory.manifest)
    except RlhfctlError:
        manifest, damaged = Manifest(), True
    finished = [stage.name for stage in ALL_STAGES if stage.name in manifest.stages]
    begun = [stage.name for stage in ALL_STAGES if directory.partial(stage.name).is_dir()]
    stage = (begun or finished[::-1] or [""])[0]
    state: State = "unfinished"
    if directory.is_locked():
        state = "running"
        phase = read_phase(directory.progress)
        stage = phase.stage if phase else stage
    elif (root / SWEEP_FILE).is_file():
        state = "sweep"
    elif (root / METHODS_FILE).is_file():
        state = "comparison"
    elif damaged:
        state = "damaged"
    elif begun:
        state = "interrupted"
    elif EVALUATION.name in finished:
        state = "finished"
    changed, size = _last_change(directory), sum(_sizes(root))
    return RunOverview(directory, state, stage, changed, size, manifest)


def run_named(name: str, runs_dir: Path) -> RunDirectory:
    """Return a run by its name in the directory for runs, or by the path of its folder.

    Raises:
        UsageError: There is no such run.
    """
    from pathlib import Path

    for root in (runs_dir / name, Path(name)):
        if is_run(root.resolve()):
            return RunDirectory(root)
    raise UsageError(
        "run not found",
        where=name,
        hint=f"`rlhfctl runs` lists those in {runs_dir}; --runs-dir names another directory",
    )


def removable(name: str, runs_dir: Path) -> RunDirectory:
    """Return a run that may be removed: a folder directly in the directory for runs.

    Raises:
        UsageError: The name is a path or a link, or the folder is no run.
    """
    root = runs_dir / name
    if not RUN_NAME.fullmatch(name):
        raise UsageError("not the name of a run", where=name, hint="name a folder, without a path")
    if root.is_symlink():
        raise UsageError(
            "is a link, and what it leads to is not removed", str(root), "name the run itself"
        )
    if not is_run(root):
        raise UsageError(
            "is no run of rlhfctl" if root.exists() else "run not found",
            where=str(root),
            hint=f"`rlhfctl runs` lists those in {runs_dir}",
        )
    return RunDirectory(root)


def remove(directory: RunDirectory) -> None:
    """Remove a run folder while holding its lock; links within it are removed, not followed.

    Raises:
        LockedError: Another process is using it, or a run of the sweep.
        CheckpointError: It cannot be removed in whole.
    """
    for inner in directory.root.iterdir():
        if is_run(inner):
            with RunDirectory(inner).lock():
                pass
    with directory.lock():
        hidden = directory.root.with_name(f".{directory.name}.removed")
        try:
            if hidden.exists():
                shutil.rmtree(hidden)
            directory.root.rename(hidden)
            shutil.rmtree(hidden)
        except OSError as error:
            raise CheckpointError(
                f"the run cannot be removed: {error.strerror or error}",
                where=str(error.filename or hidden),
                hint="change the permissions, and remove the folder by hand",
            ) from error


def _last_change(directory: RunDirectory) -> datetime:
    files = [directory.recipe, directory.manifest, directory.log_file]
    files += _files_of_runs(directory.root)
    files += [directory.partial_metrics(stage.name) for stage in ALL_STAGES]
    times = [file.stat().st_mtime for file in files if file.is_file()]
    return datetime.fromtimestamp(max(times, default=0.0), UTC)


def _sizes(root: Path) -> Iterator[int]:
    """Yield the sizes of files below a folder, each hard-linked file once; links are not followed."""
    counted: set[tuple[int, int]] = set()
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - thousands of files
            except OSError:
                continue
            key = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and key not in counted:
                counted.add(key)
                yield status.st_size
