"""Every error a user can cause or meet, each with its exit code: what, where, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes; `docs/reference/exit-codes.md` and ``--help`` render `EXIT_CODE_MEANINGS`."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    ENVIRONMENT = 4
    DIVERGED = 5
    GATE_FAILED = 6
    NO_CHECKPOINT = 7
    LOCKED = 8
    OUT_OF_MEMORY = 9
    DISK_FULL = 10
    UNSAFE = 11
    INTERRUPTED = 130
    PREEMPTED = 143


EXIT_CODE_MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.INTERNAL: "internal error (a bug: please report it with --debug)",
    ExitCode.USAGE: "usage or recipe",
    ExitCode.DATA: "data",
    ExitCode.ENVIRONMENT: "environment (device, library, hub, folder, lost process)",
    ExitCode.DIVERGED: "diverged (NaN, infinite, or the KL budget overrun)",
    ExitCode.GATE_FAILED: "a gate failed",
    ExitCode.NO_CHECKPOINT: "no valid checkpoint",
    ExitCode.LOCKED: "the run is locked by another process",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.DISK_FULL: "disk full",
    ExitCode.UNSAFE: "refused as unsafe",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.PREEMPTED: "preempted, with a checkpoint saved",
}


@dataclass(eq=False)
class RlhfctlError(Exception):
    """A failure that the user can understand and mend; anything else that escapes is a bug.

    Attributes:
        what: One sentence: what is wrong.
        where: File and line, recipe key, or folder; empty when there is none.
        hint: What to do, or the next command; empty when there is none.
    """

    what: str
    where: str = ""
    hint: str = ""

    exit_code = ExitCode.INTERNAL

    def __str__(self) -> str:
        """Return the message as it is shown: ``where: what`` and the hint on its own line."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}\n{self.hint}" if self.hint else line


class UsageError(RlhfctlError):
    """The command line does not say what to do, or says it wrongly."""

    exit_code = ExitCode.USAGE


class RecipeError(RlhfctlError):
    """The recipe is not one; `what` may list several errors, a line each."""

    exit_code = ExitCode.USAGE


class DataError(RlhfctlError):
    """A data set is missing, unreadable, of the wrong form, or empty."""

    exit_code = ExitCode.DATA


class EnvironmentFault(RlhfctlError):
    """The machine, a library, the hub or a folder does not give what the run needs."""

    exit_code = ExitCode.ENVIRONMENT


class LostProcessFault(EnvironmentFault):
    """Another process of this command ended, or cannot be reached."""


class DivergedError(RlhfctlError):
    """Training left the range in which its metrics mean anything."""

    exit_code = ExitCode.DIVERGED


class GateError(RlhfctlError):
    """A gate that the recipe sets was not passed."""

    exit_code = ExitCode.GATE_FAILED


class CheckpointError(RlhfctlError):
    """A checkpoint is missing, damaged, or made for another base, rank or tokenizer."""

    exit_code = ExitCode.NO_CHECKPOINT


class LockedError(RlhfctlError):
    """Another process works in this run folder."""

    exit_code = ExitCode.LOCKED


class OutOfMemoryFault(RlhfctlError):
    """The device or the machine ran out of memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class DiskFullError(RlhfctlError):
    """The disk is full; what was complete before is still there."""

    exit_code = ExitCode.DISK_FULL


class UnsafeError(RlhfctlError):
    """Something would run code that the user has not agreed to."""

    exit_code = ExitCode.UNSAFE


class PreemptedError(RlhfctlError):
    """The process was asked to end and saved a checkpoint first."""

    exit_code = ExitCode.PREEMPTED


@dataclass(eq=False)
class PeerError(RlhfctlError):
    """What another process of this command failed with, as it told this one.

    Attributes:
        rank: The other's number.
        kind: The name of its error's class.
        code: Its exit code.
    """

    rank: int = 0
    kind: str = ""
    code: int = ExitCode.INTERNAL

    def __post_init__(self) -> None:
        """Take over the other process's exit code."""
        self.exit_code = ExitCode(self.code)

    def __str__(self) -> str:
        """Return the other process's message, with its number."""
        return f"process {self.rank}: {super().__str__()}"
