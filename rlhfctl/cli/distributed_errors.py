"""Error handling across the processes of one command: the first failure is reported once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.boundary import Interrupted, describe
from rlhfctl.errors import PeerError
from rlhfctl.run import exit_status, stop
from rlhfctl.run.stop import Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.run.process_group import ProcessGroup


@contextmanager
def distributed_errors(group: ProcessGroup) -> Iterator[None]:
    """Share a failure with the other processes; process 0 reports the first one.

    Raises:
        PeerError: In process 0, if another process failed first.
        typer.Exit: In the other processes, which print nothing.
    """
    try:
        yield
    except typer.Exit:
        raise
    except BaseException as error:
        if isinstance(error, Stopped):
            stop.begin(error.number)
        failure = _cause(error)
        first = group.first_failure(describe(failure))
        if group.is_main:
            if failure is not error and not isinstance(error, KeyboardInterrupt):
                raise failure from error
            # When all processes stop, process 0 knows what is kept, whoever was first.
            both_stopped = isinstance(error, Stopped) and first["type"] == Stopped.__name__
            if first["rank"] == group.rank or both_stopped:
                raise
            raise _peer_error(first) from error
        if not group.joined:
            raise
        exit_status.leave(first["exit_code"], str(_peer_error(first)), first)
        raise typer.Exit(first["exit_code"]) from error


def _cause(error: BaseException) -> BaseException:
    """Return the error to report: a launcher's signal is due to a process that was killed before."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted()
    lost = exit_status.lost() if isinstance(error, Stopped) else []
    return exit_status.lost_fault(lost) if lost else error


def _peer_error(status: dict[str, Any]) -> PeerError:
    return PeerError(
        status["message"],
        status["where"],
        status["hint"],
        rank=status["rank"],
        kind=status["type"],
        code=status["exit_code"],
    )
