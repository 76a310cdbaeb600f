"""Working folder of a stage, and the atomic replacement of an earlier result.

A result folder is complete whenever it exists. The steps are:

1. The stage writes to `.STAGE.partial`, and its files are flushed.
2. An earlier result is renamed to `.STAGE.replaced`.
3. The partial folder is renamed to the result.
4. The manifest is written, and the earlier result is removed.

After a crash at any point, `recover` restores a result that matches its record.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.run.directory import METRICS_FILE
from rlhfctl.run.files import CHECKPOINTS, RESPONSES, digest, sync_entry, sync_folder, write_atomic
from rlhfctl.run.manifest import Artifact
from rlhfctl.run.sealed import SEAL, read_sealed, with_digest_line, write_sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import StageRecord
    from rlhfctl.run.resumption import Resumption


def recover(directory: RunDirectory, stage: str, record: StageRecord | None) -> None:
    """Finish or undo a replacement that was interrupted by a crash."""
    replaced, final = directory.replaced(stage), directory.stage(stage)
    if not replaced.exists():
        return
    recorded = record.outputs[stage].sha256 if record and stage in record.outputs else None
    if recorded is not None and final.exists() and digest(final) == recorded:
        shutil.rmtree(replaced)
        return
    if final.exists():
        shutil.rmtree(final)
    replaced.rename(final)
    sync_entry(directory.root)


@dataclass(frozen=True)
class Attempt:
    """An opened partial folder.

    Attributes:
        resuming: Whether there are checkpoints to resume from.
        changes: Differences, allowed by the user, from what the checkpoints were made from.
    """

    resuming: bool
    changes: tuple[str, ...] = ()


def open_partial(
    directory: RunDirectory,
    stage: str,
    recipe_part: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    resumption: Resumption,
    processes: int = 1,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Attempt:
    """Create a stage's partial folder, or keep that of an interrupted attempt with checkpoints.

    Nothing is removed that could be resumed from, unless the user forces it.

    Args:
        directory: Run folder.
        stage: Name of the stage.
        recipe_part: Recipe values that the result depends on.
        inputs: Inputs of the stage.
        resumption: What the user allows.
        processes: Number of processes.
        defaults: Defaults of the recipe's keys; see `staleness.changed_keys`.

    Raises:
        UsageError: The recipe part, inputs or processes differ in a way that is not allowed.
        CheckpointError: There are checkpoints, and no record of what they were made from.
    """
    partial, inputs_file = directory.partial(stage), directory.partial_inputs(stage)
    attempt = Attempt(resuming=False)
    if resumption.force or not has_checkpoints(partial):
        discard_partial(directory, stage)
    else:
        before = _made_from(inputs_file, stage)
        earlier: list[str] = before.pop("changes")
        changes = resumption.changes(stage, before, recipe_part, inputs, defaults)
        changes += resumption.processes_change(stage, partial / CHECKPOINTS, processes)
        attempt = Attempt(resuming=True, changes=(*earlier, *changes))
    write_sealed(
        inputs_file,
        {
            "recipe_part": dict(recipe_part),
            "inputs": {name: asdict(artifact) for name, artifact in inputs.items()},
            "changes": list(attempt.changes),
        },
    )
    partial.mkdir(exist_ok=True)
    return attempt


def _made_from(path: Path, stage: str) -> dict[str, Any]:
    """Return the recipe part, inputs and earlier changes of a partial folder."""
    record = read_sealed(path)
    try:
        if record is not None:
            inputs = {name: Artifact(**fields) for name, fields in record["inputs"].items()}
            changes = [str(change) for change in record["changes"]]
            return {"recipe_part": record["recipe_part"], "inputs": inputs, "changes": changes}
    except (KeyError, TypeError, AttributeError):
        record = None
    raise CheckpointError(
        f"the settings that the checkpoints of {stage} were made with are missing or damaged",
        str(path),
        f"Restore the file from a copy, or start {stage} anew with --force, which removes them.",
    )


@contextmanager
def recipe_written(directory: RunDirectory, stage: str, text: str) -> Iterator[None]:
    """Write the run's recipe before a stage runs, and restore the earlier one if it fails.

    The new recipe stays if the stage succeeds or leaves checkpoints to resume from. Commands
    without a recipe argument read the run's, which must not be one that has just failed.
    """
    path = directory.recipe
    earlier = path.read_text(encoding="utf-8") if path.exists() else None
    write_atomic(path, with_digest_line(text))
    try:
        yield
    except BaseException:
        if earlier is not None and not has_checkpoints(directory.partial(stage)):
            write_atomic(path, earlier)
        raise


def has_checkpoints(partial: Path) -> bool:
    """Return whether a partial folder holds anything to resume from.

    That is a complete checkpoint, batches of responses, or the first of two models that a stage
    trains, once it has metrics.
    """
    checkpoints = partial / CHECKPOINTS
    return (
        (partial / METRICS_FILE).is_file()
        or any(checkpoints.glob(f"{RESPONSES}*"))
        or any(not seal.parent.name.startswith(".") for seal in checkpoints.rglob(SEAL))
    )


def discard_partial(directory: RunDirectory, stage: str) -> None:
    """Remove a stage's partial folder and the record of its inputs."""
    if directory.partial(stage).exists():
        shutil.rmtree(directory.partial(stage))
    directory.partial_inputs(stage).unlink(missing_ok=True)


def promote(directory: RunDirectory, stage: str) -> None:
    """Rename the partial folder to the result; move an earlier result aside."""
    partial, final = directory.partial(stage), directory.stage(stage)
    sync_folder(partial)
    if final.exists():
        final.rename(directory.replaced(stage))
    partial.rename(final)
    sync_entry(directory.root)


def clean_up(directory: RunDirectory, stage: str, inputs: Iterable[Artifact] = ()) -> None:
    """Remove the files of an unfinished stage and its replaced result, once a result is recorded.

    Args:
        directory: Run folder.
        stage: Name of the stage.
        inputs: Inputs that the manifest names; those among the earlier result's checkpoints are
            moved to the new result.
    """
    replaced, final = directory.replaced(stage), directory.stage(stage)
    if replaced.exists():
        for artifact in inputs:
            path = directory.root / artifact.path
            if path.is_relative_to(final / CHECKPOINTS) and not path.exists():
                earlier = replaced / path.relative_to(final)
                if earlier.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    earlier.rename(path)
        shutil.rmtree(replaced)
    directory.partial_inputs(stage).unlink(missing_ok=True)
