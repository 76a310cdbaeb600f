"""One command that runs stages, from its settings to its result."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.boundary import classify, describe
from rlhfctl.cli.distributed_errors import distributed_errors
from rlhfctl.cli.human_votes import check_ballots, with_ballots
from rlhfctl.cli.resolve import Resolved, resolve
from rlhfctl.cli.summary import results_table
from rlhfctl.cli.validation import require_valid_files
from rlhfctl.console import Terminal
from rlhfctl.errors import GateError
from rlhfctl.pipeline import StageResult, needed_stages, run_stages, worker_loop
from rlhfctl.run import exit_status
from rlhfctl.run.files import write_atomic
from rlhfctl.run.gates import GateResult, check_gates, parse_gates, require_gates
from rlhfctl.run.log_capture import capture_logs
from rlhfctl.run.process_group import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.cli.options import GivenKeys, Settings

_log = logging.getLogger("rlhfctl")


def run_command(
    name: str, stages: Sequence[str] | None, settings: Settings, keys: GivenKeys
) -> None:
    """Bring stages up to date, write the report, show the result, hold the gates.

    Args:
        name: The command's, for the log.
        stages: Names of stages; None for all that the recipe needs.
        settings: From the command line.
        keys: Recipe keys set by short options.

    Raises:
        RlhfctlError: The command cannot be carried out.
        typer.Exit: A gate failed, after everything was shown.
    """
    if settings.launch is not None:
        from rlhfctl.cli.launch import launch

        raise typer.Exit(launch(name, settings.launch, settings, keys))
    group = ProcessGroup.from_environment()
    exit_status.begin()
    with distributed_errors(group):
        if group.is_main:
            _run_command(name, stages, settings, keys, group)
        else:
            worker_loop(group)


def _run_command(
    name: str,
    stages: Sequence[str] | None,
    settings: Settings,
    keys: GivenKeys,
    group: ProcessGroup,
) -> None:
    terminal = Terminal(quiet=settings.quiet, as_json=settings.json)
    resolved = resolve(settings, keys)
    recipe, directory = resolved.loaded.recipe, resolved.directory
    terminal.note(f"recipe {resolved.choice.path} ({resolved.choice.reason}), run {directory.root}")
    parse_gates(recipe.evaluation.gates)
    check_ballots(settings)
    if stages is None:
        require_valid_files(recipe, terminal)
    directory.create()
    with capture_logs(directory.log_file, f"rlhfctl {name}"), terminal.view() as view:
        try:
            results = run_stages(
                recipe,
                directory,
                stages or needed_stages(recipe),
                view,
                force=settings.force,
                group=group,
            )
            _renew_report(resolved, results)
            results = with_ballots(settings, resolved, results, view)
        except BaseException:
            _log.exception("rlhfctl %s ended early", name)
            raise
    _show(terminal, resolved, results)


def _renew_report(resolved: Resolved, results: Sequence[StageResult]) -> None:
    """Write the report after an evaluation, unless nothing has changed since it was written."""
    directory = resolved.directory
    unchanged = directory.report.exists() and all(done.status == "skipped" for done in results)
    if _evaluated(results) and not unchanged:
        from rlhfctl.report.page import render

        write_atomic(directory.report, render(directory.root))


def _evaluated(results: Sequence[StageResult]) -> bool:
    """Whether the command ended in an evaluation, and with it in a report."""
    return results[-1].stage == "eval"


def _show(terminal: Terminal, resolved: Resolved, results: Sequence[StageResult]) -> None:
    """Show what was achieved; a failed gate is shown with it and ends the command."""
    gates = _gate_results(resolved, results)
    failure: GateError | None = None
    try:
        require_gates(gates)
    except GateError as error:
        failure = error
    if terminal.as_json:
        terminal.write_json(_as_json(resolved, results, gates, failure))
    lines = [f"run folder  {resolved.directory.root}"]
    if _evaluated(results):
        lines.append(f"report      {resolved.directory.report}")
    if not (terminal.as_json and terminal.quiet):
        terminal.result(results_table(results), *lines)
    if failure is not None:
        code, message = classify(failure)
        terminal.error(message)
        raise typer.Exit(code)


def _gate_results(resolved: Resolved, results: Sequence[StageResult]) -> list[GateResult]:
    evaluation = next((result for result in results if result.stage == "eval"), None)
    if evaluation is None:
        return []
    gates = parse_gates(resolved.loaded.recipe.evaluation.gates)
    return check_gates(gates, evaluation.record.metrics)


def _as_json(
    resolved: Resolved,
    results: Sequence[StageResult],
    gates: Sequence[GateResult],
    failure: GateError | None,
) -> dict[str, Any]:
    directory = resolved.directory
    value: dict[str, Any] = {
        "ok": failure is None,
        "recipe": {"path": str(resolved.choice.path), "reason": resolved.choice.reason},
        "run": str(directory.root),
        "report": str(directory.report) if _evaluated(results) else None,
        "stages": [
            {"status": result.status, "reasons": list(result.reasons), **asdict(result.record)}
            for result in results
        ],
        "gates": [
            {**asdict(gate.gate), "value": gate.value, "passed": gate.passed} for gate in gates
        ],
    }
    if failure is not None:
        value["error"] = describe(failure)
    return value
