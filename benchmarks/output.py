"""Output of benchmarks as tables and JSON, and measurements in separate processes."""

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
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def write(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Write a benchmark's result as JSON and print the path."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(f"{path}", highlight=False, soft_wrap=True)
    return path


def in_process(
    module: str, work: Work, folder: Path, python: Path | None = None, **environment: str
) -> dict[str, Any]:
    """Run ``python -m MODULE WORK CHECKPOINTS RESULT`` and return the result.

    Args:
        module: A module of `benchmarks`.
        work: Workload.
        folder: Checkpoints.
        python: Interpreter; None uses the current one.
        environment: Additional environment variables.
    """
    with tempfile.TemporaryDirectory() as scratch:
        work_file, result_file = Path(scratch, "work.json"), Path(scratch, "result.json")
        work_file.write_text(json.dumps(work.as_json()), encoding="utf-8")
        subprocess.run(
            [
                str(python or sys.executable),
                "-m",
                module,
                str(work_file),
                str(folder),
                str(result_file),
            ],
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
        result: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return result


def megabytes(count: float) -> str:
    """Format bytes in MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
