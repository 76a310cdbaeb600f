"""Progress of reading and encoding, for a bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Progress(Protocol):
    """Receiver of progress and messages; every monitor of a stage is one."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a phase of `total` units of work."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Report that `done` units are done."""

    def note(self, message: str) -> None:
        """Show the user a message of one line."""

    def finish(self) -> None:
        """End the phase."""


class NoProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Do nothing."""

    def step(self, done: int, metrics: Mapping[str, float]) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


NO_PROGRESS = NoProgress()
