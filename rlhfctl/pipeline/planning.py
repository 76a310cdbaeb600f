"""Inputs of a stage, and the reasons why its recorded result is out of date."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rlhfctl
from rlhfctl.errors import CheckpointError
from rlhfctl.recipe.ppo import source_file
from rlhfctl.recipe.view import is_declared, stage_part
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from rlhfctl.run.staleness import changes, output_changes, recipe_changes
from rlhfctl.stage_table import EVALUATION, REWARD_MODEL, STAGES, Stage, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.directory import RunDirectory
    from rlhfctl.run.monitor import Monitor

_PATH_KEYS = (
    *("model.name_or_path", "model.chat_template", "sft.init_from"),
    *("data.demonstrations.source", "data.comparisons.source", "data.prompts.source"),
    *("evaluation.judge_rm", "evaluation.reward_bench"),
)
"""Keys whose values may be local files or folders."""


def external_checkpoints(recipe: Recipe, stage: Stage) -> dict[str, str]:
    """Return the checkpoints that the recipe names for a stage, which replace the run's own.

    Returns:
        Name of the stage that usually makes the checkpoint -> path in the recipe.
    """
    paths: dict[str, str] = {}
    for name, keys in stage.checkpoint_keys:
        values = (_value(recipe, key) for key in keys)
        path = next((value for value in values if value is not None), None)
        if path is not None:
            paths[name] = path
    return paths


def needed_stages(recipe: Recipe) -> list[str]:
    """Return the names of the stages of a whole run, in order.

    A stage is left out where the recipe replaces its result, or where no later stage reads it.
    """
    needed = {EVALUATION.name}
    for stage in reversed(STAGES):
        if stage.name in needed:
            needed |= set(_inputs_of(recipe, stage)) - set(external_checkpoints(recipe, stage))
    return [stage.name for stage in STAGES if stage.name in needed]


def is_finished(recipe: Recipe, directory: RunDirectory, stages: Sequence[str]) -> bool:
    """Whether every stage has a record that is up to date.

    Raises:
        CheckpointError: The manifest, or a file that the recipe names, cannot be read.
    """
    manifest = Manifest.load(directory.manifest)
    plans = (StagePlan(recipe, directory, stage_named(name), manifest) for name in stages)
    return all(plan.record is not None and plan.is_up_to_date() for plan in plans)


@dataclass(frozen=True)
class StagePlan:
    """One stage of a run, before it runs.

    Attributes:
        recipe: The whole recipe.
        directory: The run folder.
        stage: The stage.
        manifest: The records of the run so far.
    """

    recipe: Recipe
    directory: RunDirectory
    stage: Stage
    manifest: Manifest

    @property
    def record(self) -> StageRecord | None:
        """The stage's record, if it has finished before."""
        return self.manifest.stages.get(self.stage.name)

    @cached_property
    def recipe_part(self) -> dict[str, Any]:
        """The recipe values that the result depends on."""
        return stage_part(self.recipe, self.stage)

    @cached_property
    def checkpoints(self) -> dict[str, Path]:
        """The checkpoints to read: those that the recipe names, else the run's own.

        Raises:
            CheckpointError: A required checkpoint is missing or damaged.
        """
        external = external_checkpoints(self.recipe, self.stage)
        folders: dict[str, Path] = {}
        for name in _inputs_of(self.recipe, self.stage):
            if name in external:
                folders[name] = self._external(stage_named(name), external[name])
            elif name in self.manifest.stages:
                folders[name] = self._own(stage_named(name), self.manifest.stages[name])
            elif name in self.stage.requires:
                producer = stage_named(name)
                raise CheckpointError(
                    f"{self.stage.name} needs {producer.product}, and this run has none",
                    where=str(self.directory.root),
                    hint=f"create it with {self._command(producer)}, or name one with "
                    f"--{name} PATH",
                )
        return folders

    @cached_property
    def artifacts(self) -> dict[str, Artifact]:
        """Digests of the checkpoints and of the local files that the result depends on."""
        return self.digests({**self.checkpoints, **self._sources()})

    def digests(self, paths: Mapping[str, Path]) -> dict[str, Artifact]:
        """Return the digest of every path.

        Raises:
            CheckpointError: A file cannot be read.
        """
        try:
            return {name: Artifact.of(path, self.directory.root) for name, path in paths.items()}
        except OSError as error:
            raise CheckpointError(
                f"cannot be read: {error.strerror}", where=str(error.filename)
            ) from error

    def is_up_to_date(self) -> bool:
        """Whether the stage has a record that would be kept."""
        external = external_checkpoints(self.recipe, self.stage).values()
        if self.record is None or not all(Path(path).expanduser().is_dir() for path in external):
            return False
        return not self.reasons()

    def reasons(self) -> list[str]:
        """Return why the recorded result is out of date; empty if it is not, or has no record."""
        if self.record is None:
            return []
        return changes(self.record, self.recipe_part, self.artifacts, self.directory)

    def warn_of_stale_inputs(self, monitor: Monitor) -> None:
        """Warn of the run's own checkpoints that another recipe or input would now change."""
        external = external_checkpoints(self.recipe, self.stage)
        for name in self.checkpoints:
            if name in external:
                continue
            producer, record = stage_named(name), self.manifest.stages[name]
            stale = recipe_changes(record.recipe_part, stage_part(self.recipe, producer))
            stale += [f"made from an earlier {earlier}" for earlier in self._outdated(record)]
            if stale:
                monitor.warn(
                    f"{name} is out of date ({'; '.join(stale)}); "
                    f"{self._command(producer)} updates it"
                )

    def _command(self, stage: Stage) -> str:
        return f"`rlhfctl {stage.command} --run {self.directory.name}`"

    def _external(self, producer: Stage, text: str) -> Path:
        path = Path(text).expanduser()
        if not path.is_dir():
            raise CheckpointError(
                f"the recipe names {producer.product} for {self.stage.name} in a folder that "
                "does not exist: no such folder",
                where=text,
                hint="name a local checkpoint folder, or set the key to null to use the run's own",
            )
        return path

    def _own(self, producer: Stage, record: StageRecord) -> Path:
        """Return the run's own checkpoint, which must be what its stage wrote."""
        damage = output_changes(record, self.directory)
        if damage:
            raise CheckpointError(
                f"{self.stage.name} needs {producer.product}, but "
                f"{damage[0].removeprefix('its output ')}",
                where=str(self.directory.stage(producer.name)),
                hint=f"create it again with {self._command(producer)}, or name another with "
                f"--{producer.name} PATH",
            )
        return self.directory.stage(producer.name)

    def _outdated(self, record: StageRecord) -> list[str]:
        """Return the stages of this run that were run again after a stage had read their result."""
        names = []
        for name, used in record.inputs.items():
            current = self.manifest.stages.get(name)
            if (
                current
                and used.path == current.outputs[name].path
                and used != current.outputs[name]
            ):
                names.append(name)
        return names

    def _sources(self) -> dict[str, Path]:
        """Return the local files that the recipe names and the stage's result depends on."""
        sources = {
            key: path
            for key, text in self._named_files()
            if (path := Path(text).expanduser()).exists()
        }
        if self.recipe.model.name_or_path == "embedded":
            # By its weights, since a new release of rlhfctl may bring others.
            sources["model.name_or_path"] = Path(rlhfctl.__file__).parent / "world" / "assets"
        return sources

    def _named_files(self) -> Iterator[tuple[str, str]]:
        """Yield the label and the text of every declared recipe value that may name a file."""
        recipe = self.recipe
        for key in _PATH_KEYS:
            text = _value(recipe, key) if is_declared(key, self.stage) else None
            if text is not None:
                yield key, text
        if is_declared("ppo.reward_sources", self.stage):
            for source in recipe.ppo.reward_sources:
                file = source_file(source.source)
                if file is not None:
                    yield f"ppo.reward_sources: {source.source}", file
        if is_declared("evaluation.tax.tasks", self.stage):
            yield from ((f"evaluation.tax.tasks: {t}", t) for t in recipe.evaluation.tax.tasks)
        judge = recipe.evaluation.judge_function
        if judge is not None and is_declared("evaluation.judge_function", self.stage):
            file = source_file(judge)
            if file is not None:
                yield "evaluation.judge_function", file


def _inputs_of(recipe: Recipe, stage: Stage) -> tuple[str, ...]:
    """Return the stages whose results a stage reads; no reward model that gives no scores."""
    unread = () if recipe.ppo.uses_rm else (REWARD_MODEL.name,)
    return tuple(name for name in stage.accepts if name not in unread)


def _value(recipe: Recipe, key: str) -> str | None:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return None if value is None else str(value)
