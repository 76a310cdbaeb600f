"""``--launch FILE``: re-run the command under `accelerate launch` and report its outcome.

Accelerate starts the processes, and stops all of them when one fails. This process forwards
signals and derives the exit code from the status files of the others.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.cli.boundary import describe, show_error
from rlhfctl.cli.resolve import resolve
from rlhfctl.console import TERMINAL, Terminal
from rlhfctl.errors import EnvironmentFault, LostProcessFault, UsageError
from rlhfctl.recipe.load import shipped_recipes
from rlhfctl.run import exit_status, lifeline
from rlhfctl.run.process_group import no_deepspeed
from rlhfctl.run.stop import SIGNALS, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rlhfctl.cli.options import RunOptions

_OPTION = "--launch"
_EXIT_TIMEOUT = 40.0
"""Seconds to wait for processes to exit after a signal; the launcher kills them after 30."""
_TAIL = 20  # lines
_CONSEQUENCES = {LostProcessFault.__name__, Stopped.__name__}
"""Error types that are caused by the failure of another process."""


def launch(file: Path, options: RunOptions) -> int:
    """Run a command in the processes that an accelerate configuration defines.

    Args:
        file: Accelerate configuration.
        options: Options from the command line.

    Returns:
        Exit code of process 0, or of the process that failed first.

    Raises:
        UsageError: The file is not an accelerate configuration, or this process was itself launched.
        EnvironmentFault: The run folder cannot be used.
    """
    if "LOCAL_RANK" in os.environ or exit_status.expected():
        raise UsageError(
            "--launch cannot be used in a process that accelerate launch or torchrun started",
            hint="remove --launch, or run rlhfctl directly",
        )
    config = read_config(find(file))
    directory = resolve(options).directory
    directory.create()
    arguments = without_option(sys.argv[1:])
    launcher_command = [
        "accelerate",
        "launch",
        "--config_file",
        config,
        "-m",
        "rlhfctl",
        *arguments,
    ]
    Terminal(quiet=options.quiet, as_json=options.json).note(shlex.join(launcher_command))
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *launcher_command[1:]]
    with (
        tempfile.TemporaryDirectory(prefix="rlhfctl-") as folder,
        lifeline.held(Path(folder)),
    ):
        outcome = _run(command, Path(folder), directory.launch_log)
        status = _exit_outcome(exit_status.read(Path(folder)), outcome, directory.launch_log)
    if status.error and status.error.get("where") != str(directory.launch_log):
        directory.discard_launch_log()
    if status.message:
        trace = status.traceback if options.debug else ""
        show_error(status.message, status.error or {}, trace, as_json=options.json)
    return status.code or 0


def find(file: Path) -> Path:
    """Return the file, or the shipped configuration of that name.

    Raises:
        UsageError: Neither exists.
    """
    if file.is_file():
        return file
    shipped = shipped_recipes()[0].parent / "launch" / file.with_suffix(".yaml").name
    if shipped.is_file() and str(file.parent) in {".", "recipes/launch"}:
        return shipped
    raise UsageError(
        "file not found",
        f"{_OPTION} {file}",
        "pass an accelerate config, for example recipes/launch/ddp.yaml",
    )


def read_config(file: Path) -> str:
    """Return the file's path after checking it with accelerate's own parser.

    Raises:
        UsageError: The file is invalid, or requests DeepSpeed or processes started by mpirun.
    """
    import yaml
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    where = f"{_OPTION} {file}"
    try:
        config: Any = load_config_from_file(str(file))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"not an accelerate configuration: {reason}",
            where,
            "create one with `accelerate config --config_file FILE`; recipes/launch has examples",
        ) from error
    if config.distributed_type == DistributedType.MULTI_CPU:
        raise UsageError(
            "accelerate supports distributed_type MULTI_CPU with mpirun only",
            where,
            "use distributed_type: MULTI_GPU; without a GPU its processes run on the CPU",
        )
    if config.distributed_type == DistributedType.DEEPSPEED:
        raise no_deepspeed(where)
    return str(file)


def without_option(arguments: Sequence[str]) -> list[str]:
    """Return command line arguments without ``--launch FILE`` or ``--launch=FILE``."""
    remaining: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == _OPTION:
            skip = True
        elif not argument.startswith(f"{_OPTION}="):
            remaining.append(argument)
    return remaining


class _LauncherExit:
    """Exit of the launcher.

    Attributes:
        code: Exit code.
        signal: Last signal that was forwarded to it; None if there was none.
    """

    def __init__(self) -> None:
        self.code = 0
        self.signal: int | None = None


def _run(command: Sequence[str], folder: Path, log: Path) -> _LauncherExit:
    """Run the launcher until all its processes have exited.

    The launcher's stderr, including its stack traces, goes to the log. Process 0 still writes to
    the user's stderr: it inherits it from the launcher as descriptor 0, which is not read.
    """
    environment = os.environ | {exit_status.VARIABLE: str(folder), TERMINAL: "0"}
    outcome = _LauncherExit()
    with log.open("a", encoding="utf-8") as file:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"{now} === {shlex.join(command)}\n")
        file.flush()
        process = subprocess.Popen(
            command,
            stdin=sys.stderr.fileno(),
            stderr=file,
            env=environment,
            start_new_session=True,
        )
        with _forward_signals(process.pid, folder, outcome):
            outcome.code = process.wait()
            _await_processes(folder)
    return outcome


@contextmanager
def _forward_signals(group: int, folder: Path, outcome: _LauncherExit) -> Iterator[None]:
    """Pass signals on instead of exiting: the first to the processes, further ones to the launcher.

    The launcher kills its processes 30 seconds after a signal, which a step and a checkpoint may
    exceed, so the processes are asked first, once they handle signals. torchrun's processes have
    process groups of their own and receive a signal to the launcher's from torchrun. The launcher
    doesn't know SIGUSR1.
    """

    def forward(number: int, _frame: object) -> None:
        again, outcome.signal = outcome.signal is not None, number
        pids = [status.pid for status in exit_status.read(folder) if status.code is None]
        if again or not pids:
            _send(os.killpg, group, signal.SIGTERM if number == signal.SIGUSR1 else number)
        else:
            for pid in pids:
                _send(os.kill, pid, number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _send(send: Callable[[int, int], None], target: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has exited already
        send(target, number)


def _await_processes(folder: Path) -> None:
    """Wait for processes that outlive their launcher, as can happen after a signal."""
    deadline = time.monotonic() + _EXIT_TIMEOUT
    while time.monotonic() < deadline:
        if not any(
            status.code is None and exit_status.alive(status.pid)
            for status in exit_status.read(folder)
        ):
            return
        time.sleep(0.05)


def _exit_outcome(
    statuses: Sequence[exit_status.ExitStatus], outcome: _LauncherExit, log: Path
) -> exit_status.ExitStatus:
    """Return the exit status of the command, given the statuses of its processes."""
    finished = [status for status in statuses if status.code is not None]
    killed = [status for status in statuses if status.code is None]
    causes = [status for status in finished if not _is_consequence(status)]
    stopped = [status for status in finished if _has_stopped(status)]
    if outcome.signal is not None or (stopped and not causes):
        return _by_signal(stopped or finished, outcome.signal or signal.SIGTERM)
    if killed and (not causes or all(status.code == 0 for status in causes)):
        return _fault(exit_status.lost_fault(killed, str(log)))
    if not finished:
        return _fault(
            EnvironmentFault(
                f"accelerate launch ended with code {outcome.code} before any process started:\n"
                f"{_tail(log)}",
                str(log),
            )
        )
    chosen = causes or finished
    main = [status for status in chosen if status.rank == 0]
    return (main or sorted(chosen, key=lambda status: status.time))[0]


def _is_consequence(status: exit_status.ExitStatus) -> bool:
    return (status.error or {}).get("type") in _CONSEQUENCES


def _has_stopped(status: exit_status.ExitStatus) -> bool:
    return (status.error or {}).get("type") == Stopped.__name__


def _by_signal(ended: Sequence[exit_status.ExitStatus], number: int) -> exit_status.ExitStatus:
    """Return the status of process 0 after a signal, else of another, else what it would report."""
    if ended:
        return min(ended, key=lambda status: status.rank)
    return _fault(Stopped(number))


def _fault(error: BaseException) -> exit_status.ExitStatus:
    described = describe(error)
    return exit_status.ExitStatus(0, os.getpid(), described["exit_code"], str(error), described)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL:])
