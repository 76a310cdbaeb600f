"""Working folder of a stage, and the atomic replacement of an earlier result.

A result folder is complete whenever it exists. The steps are:

1. The stage writes to `.STAGE.partial`, and its files are flushed.
2. An earlier result is renamed to `.STAGE.replaced`.
3. The partial folder is renamed to the result.
4. The manifest is written, and the earlier result is removed.

After a crash at any point, `recover` restores a result that matches its record.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhfctl.run.files import CHECKPOINTS, digest, sync_entry, sync_folder, write_atomic, write_json
from rlhfctl.run.sealed import SEAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import Artifact, StageRecord


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


def open_partial(
    directory: RunDirectory,
    stage: str,
    recipe_part: Mapping[str, Any],
    inputs: Mapping[str, Artifact],
    *,
    fresh: bool,
) -> bool:
    """Create a stage's partial folder, or keep that of an interrupted attempt.

    It is kept if it holds checkpoints and has the same recipe part and inputs.

    Args:
        directory: Run folder.
        stage: Name of the stage.
        recipe_part: Recipe values that the result depends on.
        inputs: Inputs of the stage.
        fresh: Always start with an empty folder.

    Returns:
        Whether there are checkpoints to resume from.
    """
    partial, inputs_file = directory.partial(stage), directory.partial_inputs(stage)
    made_from = {
        "recipe_part": dict(recipe_part),
        "inputs": {name: asdict(artifact) for name, artifact in inputs.items()},
    }
    if not fresh and has_checkpoints(partial) and _read(inputs_file) == made_from:
        return True
    discard_partial(directory, stage)
    write_json(inputs_file, made_from)
    partial.mkdir()
    return False


@contextmanager
def recipe_written(directory: RunDirectory, stage: str, text: str) -> Iterator[None]:
    """Write the run's recipe before a stage runs, and restore the earlier one if it fails.

    The new recipe stays if the stage succeeds or leaves checkpoints to resume from. Commands
    without a recipe argument read the run's, which must not be one that has just failed.
    """
    path = directory.recipe
    earlier = path.read_text(encoding="utf-8") if path.exists() else None
    write_atomic(path, text)
    try:
        yield
    except BaseException:
        if earlier is not None and not has_checkpoints(directory.partial(stage)):
            write_atomic(path, earlier)
        raise


def has_checkpoints(partial: Path) -> bool:
    """Return whether a partial folder holds checkpoints to resume from."""
    return any((partial / CHECKPOINTS).rglob(SEAL))


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


def clean_up(directory: RunDirectory, stage: str) -> None:
    """Remove the files of an unfinished stage, once its result is recorded."""
    if directory.replaced(stage).exists():
        shutil.rmtree(directory.replaced(stage))
    directory.partial_inputs(stage).unlink(missing_ok=True)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
