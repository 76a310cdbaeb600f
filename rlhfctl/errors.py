"""User-facing errors and their exit codes."""

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
    ExitCode.USAGE: "invalid usage or recipe",
    ExitCode.DATA: "invalid data",
    ExitCode.ENVIRONMENT: "environment (device, library, Hub, folder, lost process)",
    ExitCode.DIVERGED: "diverged (NaN, infinity, KL budget or engine mismatch exceeded)",
    ExitCode.GATE_FAILED: "a gate failed",
    ExitCode.NO_CHECKPOINT: "no valid checkpoint",
    ExitCode.LOCKED: "the run is locked by another process",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.DISK_FULL: "disk full",
    ExitCode.UNSAFE: "refused as unsafe",
    ExitCode.INTERRUPTED: "interrupted (SIGINT); the message names what is kept",
    ExitCode.PREEMPTED: "terminated by SIGTERM or SIGUSR1; the message names what is kept",
}


@dataclass(frozen=True)
class ErrorDetail:
    """One of several errors that a command found at once.

    Attributes:
        what: The problem, in one sentence.
        where: File and line, recipe key or folder; empty if none applies.
        hint: Suggested fix; empty if there is none.
    """

    what: str
    where: str = ""
    hint: str = ""


@dataclass(eq=False)
class RlhfctlError(Exception):
    """A failure that the user can fix. Any other exception that leaves a command is a bug.

    Attributes:
        what: The problem, in one sentence; with several errors, one per line.
        where: File and line, recipe key or folder; empty if none applies.
        hint: Suggested fix or next command; empty if there is none.
        details: The errors that `what` lists; empty if it is a single one.
    """

    what: str
    where: str = ""
    hint: str = ""
    details: tuple[ErrorDetail, ...] = ()

    exit_code = ExitCode.INTERNAL

    def __str__(self) -> str:
        """Return ``where: what``, with the hint on a line of its own."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}\n{self.hint}" if self.hint else line


class StopRequest(BaseException):
    """A request from outside to end the work; like KeyboardInterrupt, no error of any code."""


class UsageError(RlhfctlError):
    """The command line is incomplete or invalid."""

    exit_code = ExitCode.USAGE


class RecipeError(RlhfctlError):
    """The recipe is invalid; `what` may list several errors, one per line."""

    exit_code = ExitCode.USAGE


class DataError(RlhfctlError):
    """A data set is missing, unreadable, in the wrong format, or empty."""

    exit_code = ExitCode.DATA


class EnvironmentFault(RlhfctlError):
    """The machine, a library, the Hub or a folder lacks something that the run needs."""

    exit_code = ExitCode.ENVIRONMENT


class LostProcessFault(EnvironmentFault):
    """Another process of this command has exited or cannot be reached."""


class DivergedError(RlhfctlError):
    """Training diverged: metrics are NaN or infinite, or a bound on KL or mismatch is exceeded."""

    exit_code = ExitCode.DIVERGED


class GateError(RlhfctlError):
    """A gate in the recipe failed."""

    exit_code = ExitCode.GATE_FAILED


class CheckpointError(RlhfctlError):
    """A checkpoint is missing, damaged, or incompatible with the base model, rank or tokenizer."""

    exit_code = ExitCode.NO_CHECKPOINT


class LockedError(RlhfctlError):
    """Another process is using this run folder."""

    exit_code = ExitCode.LOCKED


class OutOfMemoryFault(RlhfctlError):
    """The device or the machine ran out of memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class DiskFullError(RlhfctlError):
    """The disk is full; finished results are intact."""

    exit_code = ExitCode.DISK_FULL


class UnsafeError(RlhfctlError):
    """An operation would run code that the user has not allowed."""

    exit_code = ExitCode.UNSAFE


@dataclass(eq=False)
class PeerError(RlhfctlError):
    """The error of another process of this command.

    Attributes:
        rank: Rank of that process.
        kind: Class name of its error.
        code: Exit code of that process.
    """

    rank: int = 0
    kind: str = ""
    code: int = ExitCode.INTERNAL

    def __post_init__(self) -> None:
        """Use the exit code of the other process."""
        self.exit_code = ExitCode(self.code)

    def __str__(self) -> str:
        """Return the message of the other process, with its rank."""
        return f"process {self.rank}: {super().__str__()}"
