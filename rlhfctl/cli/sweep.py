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
from rlhfctl.recipe.offline import go_offline, require_no_connection
from rlhfctl.recipe.permissions import permit
from rlhfctl.recipe.user_code import require_permission
from rlhfctl.results.io import to_json
from rlhfctl.results.sweep import SettingMetrics
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.files import write_atomic
from rlhfctl.stage_table import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.sweep import RunError, SweepResult, SweepSetting
    from rlhfctl.sweep.plan import Job, Plan
    from rlhfctl.sweep.runner import Outcome

_COLUMNS: tuple[tuple[str, str, Callable[[SettingMetrics], Estimate | None]], ...] = (
    ("kl", "KL", lambda metrics: metrics.kl),
    ("proxy", "proxy", lambda metrics: metrics.proxy),
    ("gold", "gold", lambda metrics: metrics.gold),
    ("true_reward", "held-out RM", lambda metrics: metrics.true_reward),
    ("win_rate", "win rate", lambda metrics: metrics.win_rate),
    ("length", "length", lambda metrics: metrics.length),
    ("repetition", "repeats", lambda metrics: metrics.repetition),
)


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
    if options.offline:
        go_offline()
    permit(code=options.allow_code, remote_code=options.allow_remote_code)
    require_permission(plain)
    require_no_connection(plain, STAGES)
    require_valid_files(plain, terminal)
    with Board(terminal) as board:
        observer = JobObserver(terminal, board, len(plan.points) + len(plan.shared))
        result = run_sweep(plan, root, str(choice.path), jobs, observer, force=options.force)
    directory = RunDirectory(root)
    write_atomic(directory.report, page.html(page.read(root)))
    _show(terminal, directory, result)
    code = exit_code(result)
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


class JobObserver:
    """Prints one line per finished job, and the progress of running jobs on a terminal."""

    def __init__(self, terminal: Terminal, board: Board, total: int) -> None:
        self.terminal = terminal
        self.board = board
        self.total = total
        self.ends = 0

    def waiting(self, job: Job, reason: str) -> None:
        """Say that a job cannot start yet."""
        self.terminal.note(f"{job.name} waiting: {reason}")

    def began(self, job: Job) -> None:
        """Say that a job has started, unless its progress is shown."""
        if not self.terminal.live:
            self.terminal.note(f"{job.name} started")

    def tick(self, lines: Mapping[str, str]) -> None:
        """Show the last line of each running job."""
        self.board.show(f"{self.ends}/{self.total}", lines)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Say how a job ended."""
        self.ends += 1
        line = f"{self.ends}/{self.total} {job.name}"
        if outcome.error is not None:
            self.terminal.warn(f"{line} failed: {outcome.error.message}")
        elif outcome.status == "skipped":
            self.terminal.note(f"{line} is up to date, skipped")
        else:
            self.terminal.note(f"{line} done in {duration(outcome.seconds)}")


def _show(terminal: Terminal, directory: RunDirectory, result: SweepResult) -> None:
    from rlhfctl.sweep.run import exit_code

    code = exit_code(result)
    if terminal.as_json:
        errors = [
            {"run": point.run, **to_json(point.error)} for point in result.points if point.error
        ]
        head = {"ok": code == 0, "sweep": str(directory.root), "report": str(directory.report)}
        terminal.write_json({**head, **to_json(result), "errors": errors})
    parts: list[Any] = [_points_table(result)]
    if result.groups is not None:
        parts += ["", "means over seeds \N{PLUS-MINUS SIGN} half-width of the 95 % CI"]
        parts.append(_groups_table(result.keys, result.groups))
    parts.append("")
    if result.recommended is not None:
        parts.append(f"recommended  {result.recommended.why}")
    elif any(point.status == "done" for point in result.points):
        parts.append("recommended  none: ranking needs gold rewards or a held-out reward model")
    parts += [f"sweep folder {directory.root}", f"report       {directory.report}"]
    terminal.result(*parts)
    for point in result.points:
        if point.error is not None:
            terminal.error(f"{point.run}: {error_text(point.error)}")


def error_text(error: RunError) -> str:
    """Return a failed run's error with place and hint."""
    line = f"{error.where}: {error.message}" if error.where else error.message
    return f"{line}\n{error.hint}" if error.hint else line


def _points_table(result: SweepResult) -> Table:
    metrics = [point.metrics.ppo if point.metrics else SettingMetrics() for point in result.points]
    table, names = _table(result.keys, metrics)
    table.add_column("alarms", overflow="fold")
    table.add_column("status", no_wrap=True)
    for point, measured in zip(result.points, metrics, strict=True):
        cells = [str(point.settings[key]) for key in result.keys]
        cells += [_cell(measured, name) for name in names]
        alarms = (point.metrics.alarms if point.metrics else None) or []
        cells.append(", ".join(dict.fromkeys(alarm.name for alarm in alarms)))
        cells.append(point.status.replace("_", " "))
        table.add_row(*map(safe, cells))
    return table


def _groups_table(all_keys: Sequence[str], groups: Sequence[SweepSetting]) -> Table:
    keys = [key for key in all_keys if key != "seed"]
    table, names = _table(keys, [group.metrics for group in groups], omitted="repetition")
    for group in groups:
        cells = [str(group.settings[key]) for key in keys]
        cells += [_cell(group.metrics, name, interval=True) for name in names]
        table.add_row(*map(safe, cells))
    return table


def _table(
    keys: Sequence[str], rows: Sequence[SettingMetrics], omitted: str = ""
) -> tuple[Table, list[str]]:
    """Return a table without rows, and the names of its metrics: those that some row has."""
    # One space between columns keeps the table within the 80 columns of a pipe.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for key in keys:
        table.add_column(safe(key), style="bold", no_wrap=True)
    names = []
    for name, label, metric in _COLUMNS:
        if name != omitted and any(metric(row) is not None for row in rows):
            table.add_column(label, justify="right", no_wrap=True)
            names.append(name)
    return table, names


def _cell(metrics: SettingMetrics, name: str, *, interval: bool = False) -> str:
    estimate = next(metric(metrics) for own, _, metric in _COLUMNS if own == name)
    if estimate is None:
        return ""
    value = f"{estimate.value:.3f}" if name == "repetition" else format_metric(name, estimate.value)
    if not interval or estimate.low is None or estimate.high is None:
        return value
    half = (estimate.high - estimate.low) / 2
    return f"{value} \N{PLUS-MINUS SIGN} {half:.2g}"
