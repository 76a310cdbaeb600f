"""The `sweep` command: run a recipe with a grid of settings and print a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from rlhfctl.cli.resolve import check_run_name, choose_recipe
from rlhfctl.cli.validation import require_valid_files
from rlhfctl.console import Board, Terminal, duration, format_metric, safe
from rlhfctl.errors import UsageError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.sweep.plan import Job, Plan
    from rlhfctl.sweep.runner import Outcome

_COLUMNS = {
    "kl": "KL",
    "proxy": "proxy",
    "gold": "gold",
    "true_reward": "held-out RM",
    "win_rate": "win rate",
    "length": "length",
    "repetition": "repeats",
}


def run_grid(options: RunOptions, *, jobs: int, zipped: bool) -> None:
    """Run a recipe at every point of a grid and print the results.

    Args:
        options: Options from the command line.
        jobs: Number of parallel runs.
        zipped: Pair the lists element by element instead of forming a grid.

    Raises:
        RlhfctlError: The sweep failed.
        typer.Exit: A point failed; carries its exit code. The results have been printed.
    """
    from rlhfctl.report import sweep as page
    from rlhfctl.sweep.run import exit_code, run_sweep

    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    choice = choose_recipe(replace(options, run=None))
    plan, plain, name = _plan(options, choice.path, zipped=zipped)
    root = options.runs_dir / name
    terminal.note(
        f"recipe {choice.path} ({choice.reason}), sweep {root}: {len(plan.points)} points, "
        f"{len(plan.shared)} shared runs"
    )
    require_valid_files(plain, terminal)
    with Board(terminal) as board:
        observer = _Observer(terminal, board, len(plan.points) + len(plan.shared))
        value = run_sweep(plan, root, str(choice.path), jobs, observer, force=options.force)
    directory = RunDirectory(root)
    write_atomic(directory.report, page.html(page.read(root)))
    _show(terminal, directory, value)
    code = exit_code(value)
    if code:
        raise typer.Exit(code)


def _plan(options: RunOptions, path: Path, *, zipped: bool) -> tuple[Plan, Recipe, str]:
    """Return all runs, the recipe with the fixed settings, and the sweep's name."""
    from rlhfctl.sweep.grid import combine, merge, read_lists
    from rlhfctl.sweep.plan import make_plan

    seed = [] if options.seed is None else [f"seed={options.seed}"]
    fixed, lists = read_lists([*(options.set or []), *seed])
    overrides = [f"{key}={text}" for key, text in fixed.items()]
    recipe = load_recipe(path, overrides).recipe
    name = options.run or f"{recipe.name}-sweep"
    check_run_name(name)
    points = combine(merge(recipe.sweep, fixed, lists), zipped=zipped or recipe.sweep.zip)
    if any("name" in point for point in points):
        raise UsageError("`name` cannot be swept: the sweep names its own runs", "--set")
    return make_plan(path, overrides, points, options.runs_dir / name), recipe, name


class _Observer:
    """Prints one line per finished job, and the progress of running jobs on a terminal."""

    def __init__(self, terminal: Terminal, board: Board, total: int) -> None:
        self.terminal = terminal
        self.board = board
        self.total = total
        self.ends = 0

    def waiting(self, job: Job, reason: str) -> None:
        self.terminal.note(f"{job.name} waiting: {reason}")

    def began(self, job: Job) -> None:
        if not self.terminal.live:
            self.terminal.note(f"{job.name} started")

    def tick(self, lines: Mapping[str, str]) -> None:
        self.board.show(f"{self.ends}/{self.total}", lines)

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.ends += 1
        line = f"{self.ends}/{self.total} {job.name}"
        if outcome.status == "failed":
            self.terminal.warn(f"{line} failed: {(outcome.error or {}).get('message', '')}")
        elif outcome.status == "skipped":
            self.terminal.note(f"{line} is up to date, skipped")
        else:
            self.terminal.note(f"{line} done in {duration(outcome.seconds)}")


def _show(terminal: Terminal, directory: RunDirectory, value: dict[str, Any]) -> None:
    from rlhfctl.sweep.run import exit_code

    code = exit_code(value)
    if terminal.as_json:
        failed = next((point["error"] for point in value["points"] if "error" in point), None)
        head = {"ok": code == 0, "sweep": str(directory.root), "report": str(directory.report)}
        terminal.write_json({**head, **value, **({} if failed is None else {"error": failed})})
    if terminal.as_json and terminal.quiet:
        return
    parts: list[Any] = [_table(value["keys"], value["points"])]
    if "groups" in value:
        keys = [key for key in value["keys"] if key != "seed"]
        parts += ["", "means over seeds \N{PLUS-MINUS SIGN} half-width of the 95 % CI"]
        parts.append(_table(keys, value["groups"], intervals=True))
    parts.append("")
    if value["recommended"]:
        parts.append(f"recommended  {value['recommended']['why']}")
    elif any(point["status"] == "done" for point in value["points"]):
        parts.append("recommended  none: ranking needs gold rewards or a held-out reward model")
    parts += [f"sweep folder {directory.root}", f"report       {directory.report}"]
    terminal.result(*parts)
    for point in value["points"]:
        if "error" in point:
            terminal.error(f"{point['run']}: {_error_text(point['error'])}")


def _error_text(error: Mapping[str, Any]) -> str:
    line = f"{error['where']}: {error['message']}" if error.get("where") else error["message"]
    return f"{line}\n{error['hint']}" if error.get("hint") else str(line)


def _table(
    keys: Sequence[str], rows: Sequence[Mapping[str, Any]], *, intervals: bool = False
) -> Table:
    # One space between columns keeps the table within the 80 columns of a pipe.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for key in keys:
        table.add_column(safe(key), style="bold", no_wrap=True)
    omitted = {"repetition"} if intervals else set()
    shown = [
        name
        for name in _COLUMNS
        if name not in omitted and any(name in row.get("metrics", {}) for row in rows)
    ]
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right", no_wrap=True)
    if not intervals:
        table.add_column("alarms", overflow="fold")
        table.add_column("status", no_wrap=True)
    for row in rows:
        metrics = row.get("metrics", {})
        cells = [safe(str(row["settings"][key])) for key in keys]
        cells += [safe(_cell(metrics, name, intervals=intervals)) for name in shown]
        if not intervals:
            alarms = [alarm["name"] for alarm in metrics.get("alarms", [])]
            cells += [safe(", ".join(dict.fromkeys(alarms))), safe(row["status"].replace("_", " "))]
        table.add_row(*cells)
    return table


def _cell(metrics: Mapping[str, Any], name: str, *, intervals: bool) -> str:
    if name not in metrics:
        return ""
    if not intervals or f"{name}_low" not in metrics:
        return _formatted(name, metrics[name])
    half = (metrics[f"{name}_high"] - metrics[f"{name}_low"]) / 2
    return f"{_formatted(name, metrics[name])} \N{PLUS-MINUS SIGN} {half:.2g}"


def _formatted(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "repetition" else format_metric(name, value)
