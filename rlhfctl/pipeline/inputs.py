"""The files and folders that a stage is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rlhfctl
from rlhfctl.errors import CheckpointError
from rlhfctl.recipe.mixture_lists import DATA_KINDS
from rlhfctl.recipe.reward_sources import source_file
from rlhfctl.recipe.view import default_part, stage_part, view
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.manifest import Artifact, Manifest
from rlhfctl.run.sealed import SEAL, damage
from rlhfctl.run.staleness import output_changes, recipe_changes
from rlhfctl.stage_table import REWARD_MODEL, Stage, stage_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.manifest import StageRecord


def accepted_stages(recipe: Recipe, stage: Stage) -> list[Stage]:
    """Return the stages whose results a stage uses; no reward model where none gives scores."""
    accepted = [stage_named(name) for name in stage.accepts]
    return [other for other in accepted if other != REWARD_MODEL or recipe.ppo.uses_rm]


def external_checkpoints(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """Return the checkpoints that the recipe gives a stage in place of the run's own.

    Returns:
        Name of the stage that is replaced -> path as the recipe has it.
    """
    paths: dict[str, str] = {}
    for name, keys in stage.checkpoint_keys.items():
        path = next((value for key in keys if (value := _value(recipe, key)) is not None), None)
        if path is not None:
            paths[name] = path
    return paths


def find_checkpoints(
    recipe: Recipe, directory: RunDirectory, stage: Stage, manifest: Manifest
) -> dict[str, Path]:
    """Return the checkpoints that a stage reads: the recipe's where it names them, else the run's.

    Raises:
        CheckpointError: A required checkpoint is missing or was modified.
    """
    external = external_checkpoints(recipe, stage)
    paths: dict[str, Path] = {}
    for other in accepted_stages(recipe, stage):
        if other.name in external:
            paths[other.name] = _external(stage, other, external[other.name])
        elif other.name in manifest.stages:
            paths[other.name] = _own(directory, stage, other, manifest.stages[other.name])
        elif other.name in stage.requires:
            raise CheckpointError(
                f"{stage.name} needs {other.product}, and this run has none",
                where=str(directory.root),
                hint=f"run {_command(other, directory)} first, or name a checkpoint with "
                f"--{other.name} PATH",
            )
    return paths


def outdated_inputs(
    recipe: Recipe, directory: RunDirectory, stage: Stage, manifest: Manifest
) -> list[str]:
    """Return a warning per checkpoint of this run that the recipe would now make differently."""
    warnings: list[str] = []
    external = external_checkpoints(recipe, stage)
    for other in accepted_stages(recipe, stage):
        record = manifest.stages.get(other.name)
        if record is None or other.name in external:
            continue
        part = stage_part(recipe, other)
        reasons = recipe_changes(record.recipe_part, part, default_part(other))
        reasons += [f"made from an earlier {name}" for name in _replaced_inputs(record, manifest)]
        if reasons:
            warnings.append(
                f"{other.name} is out of date ({'; '.join(reasons)}); run "
                f"{_command(other, directory)} to update it"
            )
    return warnings


def local_files(recipe: Recipe, stage: Stage) -> dict[str, Path]:
    """Return the files on this machine that a stage reads because the recipe names them.

    Returns:
        Recipe key -> path, for those that exist.
    """
    readable = view(recipe, stage)
    names = {key: name for key, name in _named_files(readable, stage) if name is not None}
    paths = {key: Path(name).expanduser() for key, name in names.items()}
    existing = {key: path for key, path in paths.items() if path.exists()}
    if readable.model.name_or_path == "embedded":
        # The embedded model is identified by its weights: another release may ship others.
        existing["model.name_or_path"] = Path(rlhfctl.__file__).parent / "world" / "assets"
    return existing


def artifacts_of(paths: Mapping[str, Path], root: Path) -> dict[str, Artifact]:
    """Return the digest of each file or folder.

    Raises:
        CheckpointError: One cannot be read.
    """
    try:
        return {name: Artifact.of(path, root) for name, path in paths.items()}
    except OSError as error:
        raise CheckpointError(
            f"cannot be read: {error.strerror}", where=str(error.filename)
        ) from error


def _named_files(recipe: Recipe, stage: Stage) -> list[tuple[str, str | None]]:
    """Return (key, name) for each declared key that may name a local file."""
    files: list[tuple[str, str | None]] = []
    for key in stage.declared(_FILE_KEYS):
        files.append((key, _value(recipe, key)))
    for key in stage.declared(_MIXTURE_KEYS):
        files += [(f"{key}: {item.source}", item.source) for item in _value(recipe, key)]
    for key in stage.declared(("evaluation.judge_function",)):
        function = _value(recipe, key)
        files.append((key, None if function is None else source_file(function)))
    for key in stage.declared(("evaluation.tax.tasks",)):
        files += [(f"{key}: {task}", task) for task in _value(recipe, key)]
    for key in stage.declared(("ppo.reward_sources",)):
        files += [
            (f"{key}: {item.source}", source_file(item.source)) for item in _value(recipe, key)
        ]
    return files


_FILE_KEYS = (
    *("model.name_or_path", "model.chat_template", "sft.init_from"),
    *("evaluation.judge_rm", "evaluation.reward_bench"),
    *("data.demonstrations.source", "data.comparisons.source", "data.prompts.source"),
)
_MIXTURE_KEYS = tuple(f"data.{kind}.sources" for kind in DATA_KINDS)

_MODEL_CONFIGS = ("config.json", "adapter_config.json")


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _external(stage: Stage, other: Stage, name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_dir():
        raise CheckpointError(
            f"{stage.name} cannot load {other.product}: there is no such folder",
            where=name,
            hint="name a local checkpoint folder, or set the key to null to use the run's own",
        )
    problem = damage(path) if (path / SEAL).is_file() else _change_since_its_run(path)
    if problem is not None:
        raise CheckpointError(
            f"{stage.name} cannot use {other.product}: {problem}",
            where=name,
            hint="restore it from a copy, or name another checkpoint",
        )
    if not any((path / config).is_file() for config in _MODEL_CONFIGS):
        # Before digests are made: the folder may be a large one that holds something else.
        raise CheckpointError(
            f"{stage.name} cannot load {other.product}: the folder has no "
            f"{' or '.join(_MODEL_CONFIGS)}",
            where=name,
            hint="name a checkpoint folder, such as runs/NAME/sft",
        )
    return path


def _change_since_its_run(path: Path) -> str | None:
    """Return the change of a result folder since its own run recorded it; None if there is none."""
    directory = RunDirectory(path.absolute().parent)
    try:
        records = Manifest.load(directory.manifest).stages
    except CheckpointError:
        return None  # of another version: it says nothing about the folder
    record = records.get(path.name)
    changes = output_changes(record, directory) if record is not None else []
    return changes[0] if changes else None


def _own(directory: RunDirectory, stage: Stage, other: Stage, record: StageRecord) -> Path:
    """Return the run's own checkpoint; it must be exactly what its stage wrote."""
    damage = output_changes(record, directory)
    if damage:
        raise CheckpointError(
            f"{stage.name} needs {other.product}, but {damage[0]}",
            where=str(directory.stage(other.name)),
            hint=f"run {_command(other, directory)} to make it again, or name another with "
            f"--{other.name} PATH",
        )
    return directory.stage(other.name)


def _replaced_inputs(record: StageRecord, manifest: Manifest) -> Sequence[str]:
    """Return the stages of this run that have run again since a recorded stage read their result."""
    names = []
    for name, artifact in record.inputs.items():
        current = manifest.stages.get(name)
        if (
            current
            and artifact.path == current.outputs[name].path
            and artifact != current.outputs[name]
        ):
            names.append(name)
    return names


def _command(stage: Stage, directory: RunDirectory) -> str:
    return f"`rlhfctl {stage.command} --run {directory.name}`"
