"""Result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlhfctl.errors import EnvironmentFault

Level = Literal["ok", "not checked", "warning", "error"]
Fault = Literal["data", "environment"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        level: ``ok`` (examined, and sound), ``not checked`` (`what` says why), ``warning`` (the run
            can continue) or ``error`` (the run would fail).
        what: Result of the check.
        where: Recipe key or file; empty if neither applies.
        hint: Suggested fix; may be empty.
        fault: Kind of an error, which decides the exit code.
    """

    level: Level
    what: str
    where: str = ""
    hint: str = ""
    fault: Fault = "data"


def environment_error(error: EnvironmentFault) -> Finding:
    """Return the finding of a fault of this machine."""
    hint = error.hint[:1].lower() + error.hint[1:].rstrip(".")
    return Finding("error", error.what, error.where, hint, "environment")
