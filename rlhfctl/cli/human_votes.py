"""Human votes of `eval`: export blinded pairs, import the votes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlhfctl.human_votes import JUDGE, check_votes_file, export_pairs, import_votes
from rlhfctl.results.evaluation import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.cli.options import HumanVoteFiles
    from rlhfctl.cli.resolve import Resolved
    from rlhfctl.pipeline import StageResult
    from rlhfctl.run.monitor import Monitor


def check_file_types(files: HumanVoteFiles) -> None:
    """Check the file name extensions before any stage runs.

    Raises:
        UsageError: A file is neither CSV nor JSON lines.
    """
    if files.export_pairs is not None:
        check_votes_file(files.export_pairs, "--export-pairs")
    if files.import_votes is not None:
        check_votes_file(files.import_votes, "--import-votes")


def exchange_votes(
    files: HumanVoteFiles, resolved: Resolved, results: Sequence[StageResult], monitor: Monitor
) -> list[StageResult]:
    """Import votes and export pairs; return the results, updated with the votes.

    Args:
        files: Destination of the pairs and source of the votes.
        resolved: Recipe and run folder.
        results: Stage results; the evaluation is the last.
        monitor: Receives a note per file.

    Raises:
        RlhfctlError: The run has no pairs, or the file has no votes on them.
    """
    updated = list(results)
    if files.import_votes is not None:
        seed = resolved.loaded.recipe.seed
        record = import_votes(resolved.directory, files.import_votes, seed)
        updated[-1] = replace(updated[-1], record=record)
        result = record.result(EvaluationResult, resolved.directory.manifest)
        humans = (result.judges or {}).get(JUDGE)
        if humans is not None and humans.annotators is not None:
            monitor.note(f"votes on this evaluation: {humans.annotators.labels:,}")
    if files.export_pairs is not None:
        pairs = export_pairs(resolved.directory, files.export_pairs)
        monitor.note(f"{pairs:,} pairs written to {files.export_pairs}")
    return updated
