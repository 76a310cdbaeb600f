"""The commands that run stages: `sft`, `train-rm`, `ppo`, `eval` and `run`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.boundary import classify, describe, listed
from rlhfctl.cli.distributed_errors import distributed_errors
from rlhfctl.cli.human_votes import check_file_types, exchange_votes
from rlhfctl.cli.options import HumanVoteFiles
from rlhfctl.cli.resolve import Resolved, resolve
from rlhfctl.cli.summary import results_table
from rlhfctl.cli.validation import (
    require_known_changes,
    require_readable_data,
    require_usable_model,
    require_valid_files,
)
from rlhfctl.console import Terminal
from rlhfctl.errors import GateError
from rlhfctl.pipeline import (
    StageResult,
    WrittenReport,
    needed_stages,
    require_start,
    run_stages,
    worker_loop,
)
from rlhfctl.progress import View
from rlhfctl.recipe.offline import go_offline, require_no_connection
from rlhfctl.recipe.permissions import permit
from rlhfctl.recipe.user_code import require_permission
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.gates import GateResult, check_gates, parse_gates, require_gates
from rlhfctl.run import exit_status, lifeline
from rlhfctl.run.files import write_atomic
from rlhfctl.run.log_capture import capture_logs
from rlhfctl.run.process_group import ProcessGroup
from rlhfctl.run.resumption import Resumption
from rlhfctl.stage_table import EVALUATION, stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.stage_table import Stage

_log = logging.getLogger("rlhfctl")


def run_command(
    stage: Stage | None, options: RunOptions, vote_files: HumanVoteFiles | None = None
) -> None:
    """Bring stages up to date, write the report, print the result and check the gates.

    Args:
        stage: Stage to run; None for all stages that the recipe needs.
        options: Options from the command line.
        vote_files: Files of the human evaluation.

    Raises:
        RlhfctlError: The command failed.
        typer.Exit: A gate failed; the result has been printed.
    """
    if options.offline:
        go_offline()
    permit(code=options.allow_code, remote_code=options.allow_remote_code)
    if options.launch is not None:
        from rlhfctl.cli.launch import launch

        raise typer.Exit(launch(options.launch, options))
    group = ProcessGroup.from_environment()
    exit_status.begin()
    lifeline.end_with_starter()
    with distributed_errors(group):
        if group.is_main:
            _run_command(stage, options, vote_files or HumanVoteFiles(), group)
        else:
            worker_loop(group)


def _run_command(
    stage: Stage | None, options: RunOptions, vote_files: HumanVoteFiles, group: ProcessGroup
) -> None:
    command = "run" if stage is None else stage.command
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    resolved = resolve(options)
    recipe, directory = resolved.loaded.recipe, resolved.directory
    terminal.note(f"recipe {resolved.choice.path} ({resolved.choice.reason}), run {directory.root}")
    check_file_types(vote_files)
    require_known_changes(options.allow_change or ())
    stages = needed_stages(recipe) if stage is None else [stage.name]
    require_permission(recipe, [stage_named(name) for name in stages])
    require_no_connection(recipe, [stage_named(name) for name in stages])
    if stage is None:
        require_valid_files(recipe, terminal, fetch=True)
        if not recipe.ppo.uses_rm:
            terminal.note("reward model: not trained, since none of ppo.reward_sources is rm")
    else:
        require_usable_model(recipe, stage, terminal)
        require_readable_data(recipe, stage, terminal)
    require_start(recipe, directory, stages)
    directory.create()
    with capture_logs(directory.log_file, f"rlhfctl {command}"), View(terminal) as view:
        try:
            results = run_stages(
                recipe,
                directory,
                stages,
                view,
                resumption=Resumption(
                    options.force,
                    tuple(options.allow_change or ()),
                    options.allow_world_size_change,
                ),
                group=group,
                write_report=partial(_write_report, directory),
            )
            _update_report(resolved, results)
            results = exchange_votes(vote_files, resolved, results, view)
        except BaseException:
            _log.exception("rlhfctl %s failed", command)
            raise
    _show(terminal, resolved, results)


def _update_report(resolved: Resolved, results: Sequence[StageResult]) -> None:
    """Write the report after an evaluation, unless it is up to date."""
    directory = resolved.directory
    unchanged = directory.report.exists() and all(result.status == "skipped" for result in results)
    if _evaluated(results) and not unchanged:
        _write_report(directory)


def _write_report(directory: RunDirectory) -> WrittenReport:
    """Write the run's report."""
    from rlhfctl.report.page import of
    from rlhfctl.report.sources import read_run
    from rlhfctl.report.verdict import verdict_of

    facts = read_run(directory.root)
    write_atomic(directory.report, of(facts))
    return WrittenReport(verdict_of(facts).sentence, directory.report)


def _evaluated(results: Sequence[StageResult]) -> bool:
    """Return whether the last stage was the evaluation, the one that updates the report."""
    return results[-1].stage == EVALUATION.name


def _show(terminal: Terminal, resolved: Resolved, results: Sequence[StageResult]) -> None:
    """Print the results; exit with the code of `GateError` if a gate failed."""
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
    terminal.result(results_table(results, resolved.directory.manifest), *lines)
    if failure is not None:
        code, message = classify(failure)
        terminal.error(message)
        raise typer.Exit(code)


def _gate_results(resolved: Resolved, results: Sequence[StageResult]) -> list[GateResult]:
    evaluation = next((result for result in results if result.stage == EVALUATION.name), None)
    if evaluation is None:
        return []
    gates = parse_gates(resolved.loaded.recipe.evaluation.gates)
    if not gates:
        return []
    metrics = evaluation.record.result(EvaluationResult, resolved.directory.manifest)
    return check_gates(gates, metrics)


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
        value["errors"] = listed(describe(failure))
    return value
