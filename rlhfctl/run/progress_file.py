"""The stage and phase that a process is in, for `rlhfctl watch` in another one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_atomic
from rlhfctl.run.monitor import NullMonitor

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Phase:
    """The stage that is running, and its phase.

    Attributes:
        stage: Name of the stage.
        heading: Its position and title, such as ``[2/4] Reward model``.
        phase: Name of the phase, such as `eval judge`; empty between phases.
        total: Units of the phase.
        unit: Plural noun.
    """

    stage: str
    heading: str
    phase: str = ""
    total: int = 0
    unit: str = ""


class ProgressFile(NullMonitor):
    """A monitor that keeps the current phase in a file, and removes it when the stage ends.

    The counts and metrics are in the metrics file.
    """

    def __init__(self, path: Path, stage: str, heading: str) -> None:
        """Write the file; its folder must exist."""
        self._path = path
        self._begun = Phase(stage, heading)
        self._write(self._begun)

    def start(self, stage: str, total: int, unit: str) -> None:
        """Write a phase."""
        self._write(Phase(self._begun.stage, self._begun.heading, stage, total, unit))

    def finish(self) -> None:
        """Write that there is no phase."""
        self._write(self._begun)

    def close(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def _write(self, phase: Phase) -> None:
        write_atomic(self._path, json.dumps(asdict(phase)))


def read_phase(path: Path) -> Phase | None:
    """Return the phase in a file; None if there is none, or none that can be read."""
    try:
        value: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        return Phase(
            str(value["stage"]),
            str(value["heading"]),
            str(value["phase"]),
            int(value["total"]),
            str(value["unit"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
