"""Output and actions of `runs list`, `runs show` and `runs rm`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from rlhfctl.activity import byte_size
from rlhfctl.cli.summary import results_table
from rlhfctl.console import format_metric, safe
from rlhfctl.errors import LockedError, UsageError
from rlhfctl.pipeline import StageResult
from rlhfctl.pipeline.conclusions import flat_numbers
from rlhfctl.run.listing import overview, removable, remove, run_named, runs_in
from rlhfctl.stage_table import ALL_STAGES, DPO, EVALUATION, PPO, REWARD_MODEL, SFT, stage_named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.run.listing import RunOverview

_MAIN = {
    EVALUATION.name: {"win_rate": "win rate", "policies.ppo.kl": "KL"},
    PPO.name: {"last_rollout.score": "score", "last_rollout.kl": "KL"},
    DPO.name: {"accuracy": "accuracy", "mean_margin": "margin"},
    REWARD_MODEL.name: {"accuracy": "accuracy"},
    SFT.name: {"eval_loss": "loss", "token_accuracy": "token accuracy"},
}
"""Stage -> metrics of a list, by name in the manifest, with their labels."""


def show_list(runs_dir: Path, terminal: Terminal) -> None:
    """Print the runs of a directory."""
    runs = runs_in(runs_dir)
    if terminal.as_json:
        terminal.write_json({"ok": True, "runs": [as_json(run) for run in runs]})
        return
    if not runs:
        terminal.result(f"no runs in {runs_dir}; start one with `rlhfctl run`")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("run", "state", "stage", "changed"):
        table.add_column(title, no_wrap=title != "run", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("metrics", overflow="fold")
    for run in runs:
        stage = stage_named(run.stage).title if run.stage else ""
        cells = (run.directory.name, run.state, stage, ago(run.changed), byte_size(run.size))
        table.add_row(*map(safe, cells), safe(_metrics_text(run)))
    terminal.result(table)


def show_one(name: str | None, runs_dir: Path, terminal: Terminal) -> None:
    """Print one run; the newest without a name.

    Raises:
        UsageError: There is no such run, or none at all.
        CheckpointError: A file of the run is damaged.
    """
    from rlhfctl.report import values
    from rlhfctl.report.sources import read_run
    from rlhfctl.report.verdict import verdict_of

    run = overview(run_named(name, runs_dir).root) if name else newest(runs_dir)
    directory = run.directory
    facts = read_run(directory.root)
    if terminal.as_json:
        terminal.write_json({"ok": True, **as_json(run), "report": values.report(facts)})
        return
    verdict = verdict_of(facts)
    terminal.result(
        f"{directory.name}: {run.state}, {byte_size(run.size)}, changed {ago(run.changed)}",
        verdict.sentence,
        *(f"caution: {caution}" for caution in verdict.cautions),
    )
    if run.manifest.stages:
        records = [run.manifest.stages[s.name] for s in ALL_STAGES if s.name in run.manifest.stages]
        results = [StageResult(record.stage, "done", record) for record in records]
        terminal.result(results_table(results, directory.manifest))
    terminal.result(f"run folder  {directory.root}")
    if directory.report.exists():
        terminal.result(f"report      {directory.report}")


def remove_runs(names: Sequence[str], runs_dir: Path, terminal: Terminal, *, yes: bool) -> None:
    """Remove runs, once all of them can be removed and the user agrees.

    Raises:
        UsageError: A name is not a run's, or there is nobody to ask.
        LockedError: A process is using one of the runs.
    """
    runs = [overview(removable(name, runs_dir).root) for name in dict.fromkeys(names)]
    for run in runs:
        if run.state == "running":
            raise LockedError(
                "a process is using this run",
                where=str(run.directory.root),
                hint="stop it first; nothing was removed",
            )
    if not yes and not _agreed(runs, terminal):
        terminal.result("nothing was removed")
        return
    for run in runs:
        remove(run.directory)
    if terminal.as_json:
        terminal.write_json({"ok": True, "removed": [run.directory.name for run in runs]})
    else:
        for run in runs:
            terminal.result(f"removed {run.directory.root} ({byte_size(run.size)})")


def _agreed(runs: Sequence[RunOverview], terminal: Terminal) -> bool:
    """Return whether the user agrees to the removal; Ctrl-C and Ctrl-D decline.

    Raises:
        UsageError: There is nobody to ask.
    """
    if terminal.as_json or not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint="add --yes to remove without asking")
    for run in runs:
        terminal.result(f"{run.directory.root}  {run.state}, {byte_size(run.size)}")
    try:
        answer = input(f"Remove {'it' if len(runs) == 1 else f'these {len(runs)} runs'}? [y/N] ")
    except (EOFError, KeyboardInterrupt):
        terminal.result("")
        return False
    return answer.strip().lower() in {"y", "yes"}


def newest(runs_dir: Path) -> RunOverview:
    """Return the run that is running, else the one that changed last.

    Raises:
        UsageError: There is none.
    """
    runs = [run for run in runs_in(runs_dir) if run.state not in {"sweep", "comparison"}]
    if not runs:
        raise UsageError(
            "no runs found", str(runs_dir), "start one with `rlhfctl run`, or set --runs-dir"
        )
    return next((run for run in runs if run.state == "running"), runs[0])


def as_json(run: RunOverview) -> dict[str, Any]:
    """Return a run as a JSON object."""
    return {
        "name": run.directory.name,
        "path": str(run.directory.root),
        "state": run.state,
        "stage": run.stage or None,
        "finished": [stage.name for stage in ALL_STAGES if stage.name in run.manifest.stages],
        "changed": run.changed.isoformat(timespec="seconds"),
        "size_bytes": run.size,
        "metrics": main_metrics(run),
    }


def main_metrics(run: RunOverview) -> dict[str, float]:
    """Return the main metrics of the last stage that has some, by name in the manifest."""
    for stage, labels in _MAIN.items():
        record = run.manifest.stages.get(stage)
        if record is not None:
            numbers = dict(flat_numbers(record.metrics))
            return {name: numbers[name] for name in labels if name in numbers}
    return {}


def _metrics_text(run: RunOverview) -> str:
    labels = {name: label for group in _MAIN.values() for name, label in group.items()}
    return ", ".join(
        f"{labels[name]} {format_metric(name, value)}" for name, value in main_metrics(run).items()
    )


def ago(moment: datetime) -> str:
    """Return the time since a moment in its largest unit: ``5 min ago``."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "now"
