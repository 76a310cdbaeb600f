"""Export of blinded pairs for human votes, and import of the votes into a run."""

from __future__ import annotations

import csv
import io
import json
import secrets
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rlhfctl.errors import CheckpointError, DataError, UsageError
from rlhfctl.json_text import parse_json
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import from_json, to_json
from rlhfctl.run import staging
from rlhfctl.run.directory import ANSWERS_FILE, HUMAN_KEY_FILE, HUMAN_VOTES_FILE, METRICS_FILE
from rlhfctl.run.files import write_atomic, write_json
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rlhfctl.evaluation.human_votes import Answered, Vote
    from rlhfctl.run.directory import RunDirectory

JUDGE = "humans"

_COLUMNS = ("id", "prompt", "response_a", "response_b")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_LONGEST_CELL = 131_072
T = TypeVar("T")
_VOTES = {"a", "b", "tie"}


def check_votes_file(file: Path, option: str) -> None:
    """Check that a file of pairs or votes has a supported suffix.

    Raises:
        UsageError: The suffix is neither .csv nor .jsonl.
    """
    if file.suffix.lower() not in {".csv", ".jsonl"}:
        raise UsageError(
            f"{option} {file}: neither a .csv nor a .jsonl file",
            hint="name a file that ends in .csv or .jsonl",
        )


def export_pairs(directory: RunDirectory, file: Path) -> int:
    """Write the pairs of a run's evaluation, shuffled and blinded.

    Args:
        directory: Run directory; holds the key, so that repeated exports use the same sides.
        file: Output file, CSV or JSON lines by suffix.

    Returns:
        Number of pairs.

    Raises:
        CheckpointError: PPO has not been evaluated.
        UsageError: The file's folder does not exist.
    """
    from rlhfctl.evaluation.human_votes import blind_pairs

    if not file.parent.is_dir():
        raise UsageError(
            f"there is no folder {file.parent} for the pairs", hint="make it, or name another"
        )
    with directory.lock():
        salt = _key(directory).get("salt") or secrets.token_hex(16)
        pairs = blind_pairs(_answers(directory), salt)
        sides = {pair.id: pair.ppo for pair in pairs}
        write_json(directory.root / HUMAN_KEY_FILE, {"salt": salt, "ppo": sides})
    rows = [{name: asdict(pair)[name] for name in _COLUMNS} for pair in pairs]
    if file.suffix.lower() == ".csv":
        write_atomic(file, _as_csv(rows))
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomic(file, "".join(f"{line}\n" for line in lines))
    return len(rows)


def import_votes(directory: RunDirectory, file: Path, seed: int) -> StageRecord:
    """Add human votes to a run's judges, together with earlier votes.

    A voter's later vote on a pair replaces the earlier one. Metrics, manifest record and report
    change atomically.

    Args:
        directory: Run directory.
        file: Rows with `id`, `annotator` and `vote` (a, b or tie); other columns are ignored.
        seed: Seed of the bootstraps.

    Returns:
        The updated record of the evaluation.

    Raises:
        DataError: A row is not a valid vote on a pair of this run.
        CheckpointError: No pairs were exported from the current evaluation.
    """
    from rlhfctl.evaluation.human_votes import human_metrics
    from rlhfctl.report.page import render

    with directory.lock():
        manifest = Manifest.load(directory.manifest)
        staging.recover(directory, "eval", manifest.stages.get("eval"))
        answers = _answers(directory)
        sides = _sides(directory, answers)
        record = manifest.stages.get("eval")
        if record is None:
            raise CheckpointError(
                "the manifest has no evaluation", str(directory.manifest), "Run `rlhfctl eval`."
            )
        votes = _merged(directory, read_votes(file, sides))
        part = record.recipe_part.get("evaluation")
        opponent = part.get("opponent", "sft") if isinstance(part, dict) else "sft"
        judge = human_metrics(answers, sides, votes, opponent, seed)
        evaluation = record.result(EvaluationResult, directory.manifest)
        judges = {**(evaluation.judges or {}), JUDGE: judge}
        metrics = to_json(replace(evaluation, judges=judges))
        lines = [json.dumps(asdict(vote), ensure_ascii=False) for vote in votes]
        write_atomic(directory.root / HUMAN_VOTES_FILE, "".join(f"{line}\n" for line in lines))
        renewed = _renewed(directory, manifest, record, metrics)
        write_atomic(directory.report, render(directory.root))
    return renewed


def read_votes(file: Path, sides: Mapping[str, Any]) -> list[Vote]:
    """Return the votes of a file; rows without a vote are skipped.

    Args:
        file: CSV or JSON lines.
        sides: Valid pair ids.

    Raises:
        DataError: The file cannot be read, or a row is not a valid vote on a pair of this run.
    """
    from rlhfctl.evaluation.human_votes import Vote

    votes: dict[tuple[str, str], Vote] = {}
    for place, row in _rows(file):
        id_, annotator, vote = (
            str(row.get(name) or "").strip() for name in ("id", "annotator", "vote")
        )
        if not vote:
            continue
        if id_ not in sides:
            raise DataError(
                f"no pair of this run has the id {id_!r}",
                place,
                "Votes must be on pairs that --export-pairs wrote for this evaluation.",
            )
        if not annotator:
            raise DataError("a vote names no annotator", place, "Fill the column annotator.")
        if vote.lower() not in _VOTES:
            raise DataError(f"{vote!r} is no vote", place, "A vote is a, b or tie.")
        votes[id_, annotator] = Vote(id_, annotator, vote.lower())  # type: ignore[arg-type]
    if not votes:
        raise DataError(
            "there is no vote in the file",
            str(file),
            "It needs the columns id, annotator and vote.",
        )
    return list(votes.values())


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with its location."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the votes cannot be read: {error}", str(file)) from error
    if file.suffix.lower() == ".csv":
        # The limit is the process's, and readers of data sets raise it.
        csv.field_size_limit(_LONGEST_CELL)
        reader = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in reader:
                yield f"{file}:{reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"the row is no CSV: {error}", f"{file}:{reader.line_num}") from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"the line is no JSON: {error}", f"{file}:{number}") from error
        if not isinstance(row, dict):
            raise DataError("the line is no JSON object", f"{file}:{number}")
        yield f"{file}:{number}", row


def _answers(directory: RunDirectory) -> list[Answered]:
    from rlhfctl.evaluation.human_votes import Answered

    file = directory.stage("eval") / ANSWERS_FILE
    if not file.is_file():
        raise CheckpointError(
            "there are no pairs to vote on: PPO has not been evaluated against an opponent",
            str(directory.root),
            "Train the policy with `rlhfctl ppo`, then evaluate it with `rlhfctl eval --force`.",
        )
    return _json_lines(file, Answered)


def _json_lines(file: Path, kind: type[T]) -> list[T]:
    """Return the dataclasses in a file that rlhfctl wrote, one per line.

    Raises:
        CheckpointError: A line is damaged.
    """
    rows = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line:
            try:
                rows.append(from_json(kind, parse_json(line), f"{file}:{number}"))
            except ValueError as error:
                raise CheckpointError(
                    f"the line is damaged: {error}", f"{file}:{number}"
                ) from error
    return rows


def _key(directory: RunDirectory) -> dict[str, Any]:
    file = directory.root / HUMAN_KEY_FILE
    if not file.is_file():
        return {}
    try:
        key = parse_json(file.read_text(encoding="utf-8"))
        return {"salt": str(key["salt"]), "ppo": dict(key["ppo"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the key to the pairs is damaged: {error}",
            str(file),
            "Restore a copy, or remove it, export again, and collect votes on those pairs.",
        ) from error


def _sides(directory: RunDirectory, answers: list[Answered]) -> dict[str, Any]:
    sides: dict[str, Any] = _key(directory).get("ppo", {})
    if not {answer.id for answer in answers} <= set(sides):
        raise CheckpointError(
            "no pairs were exported from the current evaluation",
            str(directory.root),
            "Export pairs with --export-pairs and collect votes on them: earlier votes refer to "
            "answers that no longer exist.",
        )
    return sides


def _merged(directory: RunDirectory, new: list[Vote]) -> list[Vote]:
    """Return earlier votes on the current pairs, updated with the new votes."""
    from rlhfctl.evaluation.human_votes import Vote

    ids = {answer.id for answer in _answers(directory)}
    file = directory.root / HUMAN_VOTES_FILE
    before = _json_lines(file, Vote) if file.is_file() else []
    votes = {(vote.id, vote.annotator): vote for vote in [*before, *new] if vote.id in ids}
    return list(votes.values())


def _renewed(
    directory: RunDirectory, manifest: Manifest, record: StageRecord, metrics: dict[str, Any]
) -> StageRecord:
    """Replace the evaluation's folder and record with ones that have these metrics."""
    staging.discard_partial(directory, "eval")
    partial = directory.partial("eval")
    shutil.copytree(directory.stage("eval"), partial)
    write_json(partial / METRICS_FILE, metrics)
    staging.promote(directory, "eval")
    outputs = {"eval": Artifact.of(directory.stage("eval"), directory.root)}
    renewed = replace(record, metrics=metrics, outputs=outputs)
    manifest.with_stage(renewed).save(directory.manifest)
    staging.clean_up(directory, "eval")
    return renewed


def _as_csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(cell: str) -> str:
    """Return the cell escaped against spreadsheet formula injection."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA_STARTS) else cell
