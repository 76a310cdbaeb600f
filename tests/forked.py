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
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LIBRARIES = [
    *("datasets", "peft", "trl.trainer.reward_trainer", "trl.trainer.sft_trainer"),
    *("rlhfctl.cli.app", "rlhfctl.cli.run_stages", "rlhfctl.cli.sweep", "rlhfctl.report.html"),
]
"""Modules that most commands import. Those of rlhfctl read no environment as they are imported."""


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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
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
