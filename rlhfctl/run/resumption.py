"""Rules for resuming an interrupted stage whose settings have changed."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import UsageError
from rlhfctl.run.sealed import SEAL, processes_of
from rlhfctl.run.staleness import changed_inputs, changed_keys
from rlhfctl.stage_table import is_below

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.run.manifest import Artifact

_FIXED = ("model", "lora")
"""Sections that give the shape of what a checkpoint holds."""


@dataclass(frozen=True)
class Resumption:
    """Changes that the user allows for an interrupted stage.

    Attributes:
        force: Start every stage from its beginning.
        allow_change: Recipe keys, sections and inputs that may differ from the checkpoint's.
        allow_world_size_change: Whether the number of processes may differ.
    """

    force: bool = False
    allow_change: tuple[str, ...] = ()
    allow_world_size_change: bool = False

    def changes(
        self,
        stage: str,
        before: Mapping[str, Any],
        recipe_part: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        defaults: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[str]:
        """Return the allowed differences from what a stage's checkpoints were made from.

        Args:
            stage: Name of the stage.
            before: Its `recipe_part`, and `inputs` as artifacts, at the interruption.
            recipe_part: The recipe's present values.
            inputs: The present inputs.
            defaults: Defaults of the recipe's keys; see `changed_keys`.

        Raises:
            UsageError: There are others.
        """
        changes = changed_keys(before["recipe_part"], recipe_part, defaults)
        changes += changed_inputs(before["inputs"], inputs)
        refused = [change for change in changes if not is_below(change.key, self.allow_change)]
        if refused:
            options = " ".join(f"--allow-change {change.key}" for change in refused)
            raise UsageError(
                f"{stage} was interrupted, and settings have changed since: "
                f"{'; '.join(change.text for change in refused)}",
                hint=f"resume with the changes by {options}, undo them, or start {stage} anew with "
                "--force, which removes its checkpoints",
            )
        fixed = [change.text for change in changes if is_below(change.key, _FIXED)]
        if fixed:
            raise UsageError(
                f"{stage} cannot be resumed with this change: {'; '.join(fixed)}",
                hint=f"undo it, or start {stage} anew with --force, which removes its checkpoints",
            )
        return [change.text for change in changes]

    def processes_change(self, stage: str, checkpoints: Path, processes: int) -> list[str]:
        """Return the change in the number of processes since the checkpoints, if it is allowed.

        Args:
            stage: Name of the stage.
            checkpoints: Folder with sealed checkpoints.
            processes: Present number of processes.

        Raises:
            UsageError: It has changed and may not.
        """
        counts = {processes_of(path.parent) or processes for path in checkpoints.rglob(SEAL)}
        others = sorted(counts - {processes})
        if not others:
            return []
        text = f"the number of processes changed from {others[-1]} to {processes}"
        if not self.allow_world_size_change:
            raise UsageError(
                f"{stage} was interrupted, and {text}",
                hint=f"start {others[-1]} processes, resume with --allow-world-size-change (not "
                f"bit-exact), or start {stage} anew with --force, which removes its checkpoints",
            )
        return [f"{text} (not bit-exact)"]


UNCHANGED = Resumption()
"""Resume interrupted stages, and allow no change."""
