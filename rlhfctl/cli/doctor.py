"""Checks of the machine, one line each."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from rlhfctl.cli.boundary import describe, listed
from rlhfctl.cli.resolve import resolve
from rlhfctl.console import Terminal, safe
from rlhfctl.errors import EnvironmentFault, ErrorDetail, UsageError
from rlhfctl.recipe.offline import go_offline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.doctor.check import Check

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def examine(options: RunOptions) -> None:
    """Print the result of every check.

    Raises:
        RlhfctlError: The recipe does not exist or is invalid.
        typer.Exit: A check failed; the results have been printed.
    """
    if options.set and options.recipe is None:
        raise UsageError("--set needs a recipe", hint="name it: rlhfctl doctor RECIPE --set ...")
    if options.offline:
        go_offline()
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    checks = list(_checks(options))
    failure = _failure([check for check in checks if check.level == "fail"])
    if options.json:
        errors = listed(describe(failure)) if failure else []
        terminal.write_json(
            {
                "ok": failure is None,
                "errors": errors,
                "recipe": str(options.recipe) if options.recipe else None,
                "checks": [asdict(check) for check in checks],
            }
        )
    terminal.result(_table(checks), _verdict(checks))
    if failure is not None:
        raise typer.Exit(failure.exit_code)


def _checks(options: RunOptions) -> Iterator[Check]:
    from rlhfctl.doctor.hub import check_hub
    from rlhfctl.doctor.machine import check_folders, check_locks, check_memory
    from rlhfctl.doctor.software import check_bitsandbytes, check_gpu, check_versions

    recipe = resolve(options).loaded.recipe if options.recipe is not None else None
    yield from check_versions()
    yield from check_gpu()
    yield check_bitsandbytes(recipe)
    yield from check_memory()
    yield from check_folders(options.runs_dir, needed=recipe is not None)
    yield check_locks(options.runs_dir)
    yield from check_hub(recipe)


def _failure(failed: Sequence[Check]) -> EnvironmentFault | None:
    if not failed:
        return None
    details = tuple(ErrorDetail(check.what, check.name, check.remedy) for check in failed)
    return EnvironmentFault("\n".join(f"{one.name}: {one.what}" for one in failed), details=details)


def _table(checks: Sequence[Check]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(safe(check.level, _STYLES[check.level]), check.name, safe(check.what))
        if check.remedy:
            table.add_row("", "", safe(check.remedy, "dim"))
    return table


def _verdict(checks: Sequence[Check]) -> str:
    counts = {level: sum(check.level == level for check in checks) for level in _STYLES}
    return f"{counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail"
