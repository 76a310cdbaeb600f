"""The real command line in processes forked from one that has imported the libraries.

A new interpreter spends some 8 s of CPU time on importing torch, transformers, peft and TRL. A
fork of an interpreter that has them starts at once, and is otherwise a process like any other:
its own working directory, environment, standard streams and exit code.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import ForkServerContext

LIBRARIES = [
    *("datasets", "peft", "trl.trainer.reward_trainer", "trl.trainer.sft_trainer"),
    *("rlhfctl.cli.app", "rlhfctl.cli.run_stages", "rlhfctl.cli.sweep", "rlhfctl.report.html"),
]
"""Modules that most commands import. Those of rlhfctl read no environment as they are imported."""


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    return context


def together(
    function: Callable[..., object],
    calls: Sequence[tuple[Sequence[object], Mapping[str, str]]],
    folder: Path,
    timeout: float = 300,
) -> None:
    """Call a function in several processes at the same time, and wait for all of them.

    Args:
        function: Called by a name that the processes can import.
        calls: Arguments of each call, and what its process has in its environment besides ours.
        folder: Gets the standard error of each process.
        timeout: Seconds for all.

    Raises:
        AssertionError: A process failed or was too slow; with its standard error.
    """
    errors = [folder / f"stderr-{number}.txt" for number in range(len(calls))]
    context = _server()
    processes = [
        context.Process(target=_call, args=(function, arguments, dict(environment), path))
        for (arguments, environment), path in zip(calls, errors, strict=True)
    ]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.join()
    for process, path in zip(processes, errors, strict=True):
        assert process.exitcode == 0, path.read_text(encoding="utf-8")


def _call(
    function: Callable[..., object],
    arguments: Sequence[object],
    environment: dict[str, str],
    errors: Path,
) -> None:
    os.environ.update(environment)
    with errors.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    import torch

    torch.set_num_threads(1)
    function(*arguments)


def rlhfctl(
    folder: Path,
    arguments: Sequence[object],
    environment: Mapping[str, str] = os.environ,
    timeout: float = 300,
    prepare: Callable[[], object] = bool,
) -> subprocess.CompletedProcess[str]:
    """Run ``rlhfctl ARGUMENTS`` in a folder, as ``subprocess.run(..., text=True)`` would.

    Args:
        folder: Working directory.
        arguments: Words of the command.
        environment: Environment of the process, as far as it is read after the libraries' import.
        timeout: Seconds after which the process is killed and the test fails.
        prepare: Called in the process before the command line, by a name that it can import.

    Raises:
        subprocess.TimeoutExpired: The command took longer than `timeout`.
    """
    words = [str(argument) for argument in arguments]
    context = _server()
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "out"), Path(streams, "err")
        for stream in (out, err):
            stream.touch()
        process = context.Process(
            target=_main, args=(folder, words, dict(environment), out, err, prepare)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(
            words,
            process.exitcode,
            out.read_text(encoding="utf-8"),
            err.read_text(encoding="utf-8"),
        )


def _main(
    folder: Path,
    words: list[str],
    environment: dict[str, str],
    out: Path,
    err: Path,
    prepare: Callable[[], object],
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.argv = ["rlhfctl", *words]
    prepare()
    from rlhfctl.__main__ import main

    main()
