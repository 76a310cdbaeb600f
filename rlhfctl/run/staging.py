"""Where a stage works until it is done, and how its result takes the place of an earlier one.

A result folder appears only whole. The order is: the stage works in `.STAGE.partial`; its files
are flushed; an earlier result steps aside to `.STAGE.replaced`; the partial folder takes the
result's name; the manifest is written; the earlier result is removed. A crash at any point leaves
either the earlier result with its record or the new one with its own: `recover` sees to the rest.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhfctl.run.files import CHECKPOINTS, digest, sync_entry, sync_folder, write_atomic, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.manifest import Artifact, StageRecord


def recover(directory: RunDirectory, stage: str, record: StageRecord | None) -> None:
    """Finish or undo a replacement of a stage's result that a crash cut short."""
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
    """Make a stage's partial folder, or keep the one that an interrupted try left.

    It is kept when it holds checkpoints and was being made from the same recipe part and inputs.

    Args:
        directory: The run's.
        stage: The stage's name.
        recipe_part: What of the recipe its result depends on.
        inputs: What it is made from.
        fresh: Never keep what is there.

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
    """Write the run's recipe for as long as a stage works, and for good when it succeeds.

    Where it fails and leaves nothing to go on from, the earlier recipe comes back: commands that
    name none read the run's, and should not find there what has just been refused.
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
    """Whether a partial folder holds something to resume from."""
    checkpoints = partial / CHECKPOINTS
    return checkpoints.is_dir() and any(checkpoints.iterdir())


def discard_partial(directory: RunDirectory, stage: str) -> None:
    """Remove a stage's partial folder and what it was being made from."""
    if directory.partial(stage).exists():
        shutil.rmtree(directory.partial(stage))
    directory.partial_inputs(stage).unlink(missing_ok=True)


def promote(directory: RunDirectory, stage: str) -> None:
    """Give the partial folder the result's name; an earlier result steps aside."""
    partial, final = directory.partial(stage), directory.stage(stage)
    sync_folder(partial)
    if final.exists():
        final.rename(directory.replaced(stage))
    partial.rename(final)
    sync_entry(directory.root)


def clean_up(directory: RunDirectory, stage: str) -> None:
    """Remove what only an unfinished stage needs, once its result is recorded."""
    if directory.replaced(stage).exists():
        shutil.rmtree(directory.replaced(stage))
    directory.partial_inputs(stage).unlink(missing_ok=True)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
