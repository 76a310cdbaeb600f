"""``--launch FILE``: the same command again under `accelerate launch`, and how it ended.

There is no launcher here: accelerate starts the processes and ends all when one fails. This
process only passes signals on and turns what the others left behind into an exit code.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.cli.boundary import Interrupted, describe, show_error
from rlhfctl.cli.resolve import resolve
from rlhfctl.console import TERMINAL, Terminal
from rlhfctl.errors import EnvironmentFault, ExitCode, LostProcessFault, UsageError
from rlhfctl.recipe.load import shipped_recipes
from rlhfctl.run import exit_status
from rlhfctl.run.process_group import no_deepspeed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.cli.options import GivenKeys, Settings

_OPTION = "--launch"
_FAREWELL = 40.0
"""Seconds that processes have to end after a signal; the launcher itself kills them after 30."""
_TAIL = 20
_CONSEQUENCES = {LostProcessFault.__name__, "Terminated"}
"""Errors of a process whose real reason is another's death."""


def launch(name: str, file: Path, settings: Settings, keys: GivenKeys) -> int:
    """Run a command in the processes that an accelerate configuration asks for.

    Args:
        name: The command's.
        file: The configuration.
        settings: From the command line.
        keys: Recipe keys set by short options.

    Returns:
        The exit code of process 0, or of whichever failed first.

    Raises:
        UsageError: The file is no accelerate configuration, or this process was itself launched.
        EnvironmentFault: The launcher failed, or a process died without a word.
    """
    if "LOCAL_RANK" in os.environ or exit_status.expected():
        raise UsageError(
            "--launch starts processes, but this one was itself started by a launcher",
            hint="leave --launch out where accelerate launch or torchrun is used",
        )
    config = read_config(find(file))
    directory = resolve(settings, keys).directory
    directory.create()
    arguments = without_option(sys.argv[1:])
    told = ["accelerate", "launch", "--config_file", config, "-m", "rlhfctl", *arguments]
    Terminal(quiet=settings.quiet, as_json=settings.json).note(shlex.join(told))
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *told[1:]]
    with tempfile.TemporaryDirectory(prefix="rlhfctl-") as folder:
        ended = _run(command, Path(folder), directory.launch_log)
        word = _verdict(exit_status.read(Path(folder)), ended, directory.launch_log)
    if word.message:
        trace = word.traceback if settings.debug else ""
        show_error(word.message, word.error or {}, trace, as_json=settings.json)
    return word.code or 0


def find(file: Path) -> Path:
    """Return the file, or the one of that name that comes with rlhfctl.

    Raises:
        UsageError: There is neither.
    """
    if file.is_file():
        return file
    shipped = shipped_recipes()[0].parent / "launch" / file.with_suffix(".yaml").name
    if shipped.is_file() and str(file.parent) in {".", "recipes/launch"}:
        return shipped
    raise UsageError("there is no such file", f"{_OPTION} {file}", "recipes/launch/ddp.yaml is one")


def read_config(file: Path) -> str:
    """Return the file's name after accelerate's own parser has taken it.

    Raises:
        UsageError: It has not, or it asks for DeepSpeed or for processes started by mpirun.
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
            f"not a configuration of accelerate: {reason}",
            where,
            "`accelerate config --config_file FILE` writes one; recipes/launch has examples",
        ) from error
    if config.distributed_type == DistributedType.MULTI_CPU:
        raise UsageError(
            "accelerate starts MULTI_CPU processes by mpirun only",
            where,
            "Say distributed_type: MULTI_GPU: without a GPU its processes run on the CPU.",
        )
    if config.distributed_type == DistributedType.DEEPSPEED:
        raise no_deepspeed(where)
    return str(file)


def without_option(arguments: Sequence[str]) -> list[str]:
    """Return command line arguments without ``--launch FILE`` or ``--launch=FILE``."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == _OPTION:
            skip = True
        elif not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
    return kept


class _Ended:
    """How the launcher ended.

    Attributes:
        code: Its exit code.
        signal: The signal that was passed on to it; None without one.
    """

    def __init__(self) -> None:
        self.code = 0
        self.signal: int | None = None


def _run(command: Sequence[str], folder: Path, log: Path) -> _Ended:
    """Run the launcher until all its processes have ended.

    The launcher's stderr, with its stack traces, goes to the log. Process 0 shows things on the
    user's stderr all the same: the launcher passes descriptor 0 on, and nobody reads from it.
    """
    environment = os.environ | {exit_status.VARIABLE: str(folder), TERMINAL: "0"}
    ended = _Ended()
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
        with _passing_signals_on(process.pid, ended):
            ended.code = process.wait()
            _await_processes(folder)
    return ended


@contextmanager
def _passing_signals_on(group: int, ended: _Ended) -> Iterator[None]:
    """Send SIGINT and SIGTERM to the launcher's process group instead of ending by them.

    torchrun's processes have groups of their own and get the signal from torchrun, so each hears
    it once.
    """

    def pass_on(number: int, _frame: object) -> None:
        ended.signal = number
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            ended.signal = number  # all have ended meanwhile

    earlier = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _await_processes(folder: Path) -> None:
    """Wait for processes that outlive their launcher, as one that a signal ends may leave."""
    limit = time.monotonic() + _FAREWELL
    while time.monotonic() < limit:
        if not any(word.code is None and _alive(word.pid) for word in exit_status.read(folder)):
            return
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _verdict(
    left: Sequence[exit_status.ExitStatus], ended: _Ended, log: Path
) -> exit_status.ExitStatus:
    """Return how the command ended, from the words that its processes left."""
    spoken = [word for word in left if word.code is not None]
    silent = [word for word in left if word.code is None]
    causes = [word for word in spoken if not _is_consequence(word)]
    if ended.signal is not None:
        return _by_signal(spoken, ended.signal)
    if silent and (not causes or all(word.code == 0 for word in causes)):
        return _fault(
            LostProcessFault(
                f"{_named(silent)} died without a word",
                str(log),
                "Killed for memory, perhaps (see `dmesg`); the same command goes on from the last "
                "checkpoint.",
            )
        )
    if not spoken:
        return _fault(
            EnvironmentFault(
                f"accelerate launch ended with code {ended.code} before any process began:\n"
                f"{_tail(log)}",
                str(log),
            )
        )
    chosen = causes or spoken
    main = [word for word in chosen if word.rank == 0]
    return (main or sorted(chosen, key=lambda word: word.time))[0]


def _is_consequence(word: exit_status.ExitStatus) -> bool:
    return (word.error or {}).get("type") in _CONSEQUENCES


def _by_signal(spoken: Sequence[exit_status.ExitStatus], number: int) -> exit_status.ExitStatus:
    """Return the word of process 0 on a signal, or what it would have said."""
    for word in spoken:
        if word.rank == 0:
            return word
    if number == signal.SIGINT:
        return _fault(Interrupted(), ExitCode.INTERRUPTED, "interrupted")
    return _fault(Interrupted(), ExitCode.PREEMPTED, "ended by SIGTERM")


def _fault(
    error: BaseException, code: int | None = None, message: str = ""
) -> exit_status.ExitStatus:
    described = describe(error)
    return exit_status.ExitStatus(
        0, os.getpid(), code or described["exit_code"], message or str(error), described
    )


def _named(silent: Sequence[exit_status.ExitStatus]) -> str:
    parts = [f"process {word.rank} (pid {word.pid})" for word in silent]
    return " and ".join(parts)


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL:])
