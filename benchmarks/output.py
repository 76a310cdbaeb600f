"""A table for people, JSON for machines, and processes that measure one thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.work import Work

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
CHECKPOINTS = ROOT / "build" / "benchmarks"


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> None:
    """Print a table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def write(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Write a benchmark's result as JSON and say where."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(f"{path}", highlight=False, soft_wrap=True)
    return path


def in_process(
    module: str, work: Work, folder: Path, python: Path | None = None, **environment: str
) -> dict[str, Any]:
    """Run ``python -m MODULE WORK CHECKPOINTS RESULT`` and return the result it wrote.

    Args:
        module: A module of `benchmarks`.
        work: What to do.
        folder: The checkpoints.
        python: The interpreter, where it is not this one.
        environment: Variables to set beside this process's own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        order, answer = Path(scratch, "work.json"), Path(scratch, "result.json")
        order.write_text(json.dumps(work.as_json()), encoding="utf-8")
        subprocess.run(
            [str(python or sys.executable), "-m", module, str(order), str(folder), str(answer)],
            check=True,
            cwd=ROOT,
            capture_output="BENCHMARK_OUTPUT" not in os.environ,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": str(work.threads),
                "HF_HUB_OFFLINE": "1",
                **environment,
            },
        )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def megabytes(count: float) -> str:
    """Return bytes in MiB, or GiB where there are many."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
