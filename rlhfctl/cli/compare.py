"""The `compare` command: train rival methods from one SFT and reward model, and print a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from rlhfctl.cli.resolve import check_run_name, choose_recipe
from rlhfctl.cli.sweep import JobObserver, error_text
from rlhfctl.cli.validation import require_valid_files
from rlhfctl.console import Board, Terminal, duration, safe
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.offline import go_offline, require_no_connection
from rlhfctl.recipe.permissions import permit
from rlhfctl.recipe.user_code import require_permission
from rlhfctl.results.io import to_json
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.files import write_atomic
from rlhfctl.stage_table import STAGES

if TYPE_CHECKING:
    from rlhfctl.cli.options import RunOptions
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.methods import MethodsResult

JUDGES = {"gold": "gold reward", "held_out_rm": "the held-out reward model"}


def compare_methods(
    options: RunOptions, *, methods: str, seeds: int, jobs: int, kl: float | None
) -> None:
    """Train and evaluate every method with every seed, and print their comparison.

    Args:
        options: Options from the command line.
        methods: Comma-separated names.
        seeds: Number of seeds, counted from the recipe's.
        jobs: Number of parallel runs.
        kl: KL to compare at, in nats per response; None: the largest that all runs reach.

    Raises:
        RlhfctlError: The comparison failed.
        typer.Exit: A run failed; carries its exit code. The results have been printed.
    """
    from rlhfctl.report import methods as page
    from rlhfctl.sweep.methods import exit_code, run_methods
    from rlhfctl.sweep.methods_plan import make_methods_plan, read_methods

    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    names = read_methods(methods)
    choice = choose_recipe(replace(options, run=None))
    seed = [] if options.seed is None else [f"seed={options.seed}"]
    overrides = [*(options.set or []), *seed]
    recipe = load_recipe(choice.path, overrides).recipe
    name = options.run or f"{recipe.name}-methods"
    check_run_name(name)
    root = options.runs_dir / name
    plan = make_methods_plan(choice.path, overrides, names, seeds, root)
    total = len(plan.jobs)
    terminal.note(
        f"recipe {choice.path} ({choice.reason}), comparison {root}: {len(names)} methods, "
        f"{seeds} seeds, {total} runs ({len(plan.shared)} shared)"
    )
    if options.offline:
        go_offline()
    permit(code=options.allow_code, remote_code=options.allow_remote_code)
    require_permission(recipe)
    require_no_connection(recipe, STAGES)
    require_valid_files(recipe, terminal)
    with Board(terminal) as board:
        observer = JobObserver(terminal, board, total)
        result = run_methods(
            plan, root, str(choice.path), jobs, observer, kl=kl, force=options.force
        )
    directory = RunDirectory(root)
    write_atomic(directory.report, page.html(page.read(root)))
    _show(terminal, directory, result)
    code = exit_code(result)
    if code:
        raise typer.Exit(code)


def _show(terminal: Terminal, directory: RunDirectory, result: MethodsResult) -> None:
    from rlhfctl.sweep.methods import exit_code

    failed = [run for run in result.runs if run.error]
    if terminal.as_json:
        errors = [
            {"method": run.method, "seed": run.seed, **to_json(run.error)}
            for run in failed
            if run.error
        ]
        terminal.write_json(
            {
                "ok": exit_code(result) == 0,
                "comparison": str(directory.root),
                "report": str(directory.report),
                **to_json(result),
                "errors": errors,
            }
        )
    where = (
        f"at a KL of {result.kl:.2f} nats per response"
        if result.kl is not None
        else "no KL is reached by all of them"
    )
    terminal.result(
        f"win rate and gain over SFT by {JUDGES[result.judge]}, {where};",
        "means over seeds \N{PLUS-MINUS SIGN} half-width of the 95 % CI",
        _table(result),
        f"comparison   {directory.root}",
        f"report       {directory.report}",
    )
    for run in failed:
        if run.error:
            terminal.error(f"{run.method}, seed {run.seed}: {error_text(run.error)}")


def _table(result: MethodsResult) -> Table:
    # One space between columns keeps the table within the 80 columns of a pipe.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", style="bold", no_wrap=True)
    for title in ("win rate", "gain", "final KL", "final win", "final gain", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for method in result.methods:
        seconds = method.total_seconds
        cells = (
            method.method,
            _cell(method.win_rate_at_kl, "{:.3f}"),
            _cell(method.gain_at_kl, "{:.2f}"),
            _cell(method.kl, "{:.2f}"),
            _cell(method.win_rate, "{:.3f}"),
            _cell(method.gain, "{:.2f}"),
            duration(seconds.value) if seconds else "",
        )
        table.add_row(*map(safe, cells))
    return table


def _cell(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    value = form.format(estimate.value)
    if estimate.low is None or estimate.high is None:
        return value
    half = (estimate.high - estimate.low) / 2
    return f"{value}\N{PLUS-MINUS SIGN}{half:.2g}"
