"""How several processes of one command fail: all of them, with the first one's reason."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from rlhfctl.cli.boundary import Interrupted, describe
from rlhfctl.errors import PeerError
from rlhfctl.run import exit_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.run.process_group import ProcessGroup


@contextmanager
def distributed_errors(group: ProcessGroup) -> Iterator[None]:
    """Tell the other processes of a failure here; let process 0 show whichever came first.

    Raises:
        PeerError: In process 0: another process failed before it, and with that reason.
        typer.Exit: In the others, which show nothing.
    """
    try:
        yield
    except typer.Exit:
        raise
    except BaseException as error:
        failure = Interrupted() if isinstance(error, KeyboardInterrupt) else error
        first = group.first_failure(describe(failure))
        if group.is_main:
            if first["rank"] == group.rank:
                raise
            raise _peer_error(first) from error
        if not group.joined:
            raise
        exit_status.leave(first["exit_code"], str(_peer_error(first)), first)
        raise typer.Exit(first["exit_code"]) from error


def _peer_error(word: dict[str, Any]) -> PeerError:
    return PeerError(
        word["message"],
        word["where"],
        word["hint"],
        rank=word["rank"],
        kind=word["type"],
        code=word["exit_code"],
    )
