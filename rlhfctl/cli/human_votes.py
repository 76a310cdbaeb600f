"""What `eval` does for people who judge: pairs written for them, and their votes read back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlhfctl.cli.options import EvalSettings
from rlhfctl.human_votes import check_ballot_file, export_pairs, import_votes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.cli.options import Settings
    from rlhfctl.cli.resolve import Resolved
    from rlhfctl.pipeline import StageResult
    from rlhfctl.run.monitor import Monitor


def check_ballots(settings: Settings) -> None:
    """Refuse files of an unknown kind before anything is done.

    Raises:
        UsageError: One is neither CSV nor JSON lines.
    """
    if isinstance(settings, EvalSettings):
        for option, file in (
            ("--export-pairs", settings.export_pairs),
            ("--import-votes", settings.import_votes),
        ):
            if file is not None:
                check_ballot_file(file, option)


def with_ballots(
    settings: Settings, resolved: Resolved, results: Sequence[StageResult], monitor: Monitor
) -> list[StageResult]:
    """Read votes, write pairs, as the settings say; return the results as they are afterwards.

    Args:
        settings: From the command line.
        resolved: Recipe and run.
        results: Of the stages; the evaluation is the last.
        monitor: Told of what was done.

    Raises:
        RlhfctlError: There are no pairs, or no votes on them.
    """
    done = list(results)
    if not isinstance(settings, EvalSettings):
        return done
    if settings.import_votes is not None:
        seed = resolved.loaded.recipe.seed
        record = import_votes(resolved.directory, settings.import_votes, seed)
        done[-1] = replace(done[-1], record=record)
        votes = record.metrics["judges"]["humans"]["annotators"]["labels"]
        monitor.note(f"{votes:,} votes stand in the run")
    if settings.export_pairs is not None:
        pairs = export_pairs(resolved.directory, settings.export_pairs)
        monitor.note(f"{pairs:,} pairs written to {settings.export_pairs}")
    return done
