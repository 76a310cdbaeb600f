"""Agreement of launched processes to connect, so that none waits for one that was told to stop.

Connecting blocks in C++ until every process has come, where Python handles no signal. A process whose
peer had been stopped before would stay there until its launcher kills it, 30 seconds later. So
the processes first meet in the launcher's key-value store, where waiting handles signals, and
connect once all are there. One key decides between connecting and leaving; its first writer wins.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

from rlhfctl.errors import LostProcessFault
from rlhfctl.run import stop

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL = 0.05  # seconds
_GO = b"connect"
_LEAVE = b"leave"


class Store(Protocol):
    """The part of torch's `TCPStore` that is used."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter and return its value."""

    def check(self, keys: list[str]) -> bool:
        """Return whether all keys are set."""

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Set a key that has the expected value, or none; return its value."""


def connect_together(connect: Callable[[], object], rank: int, count: int) -> None:
    """Connect this process once every process is ready to.

    Without a launcher's store, which torchrun and accelerate provide, it connects at once.

    Args:
        connect: Blocks until all processes have called theirs.
        rank: Rank of this process.
        count: Number of processes.

    Raises:
        Stopped: This process received a signal to stop, before or while it connected.
        LostProcessFault: Another process left.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        connect()
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    with stop.deferred(_without_a_word):
        await_all(store, rank, count, f"rlhfctl/connection/{attempt}")
        connect()
    stop.check()


def await_all(store: Store, rank: int, count: int, key: str) -> None:
    """Wait until every process is ready to connect.

    Afterwards each of them connects, even if it receives a signal.

    Args:
        store: Store that all processes share.
        rank: Rank of this process.
        count: Number of processes.
        key: Prefix of the keys in the store.

    Raises:
        Stopped: This process received a signal to stop, and the others will not connect.
        LostProcessFault: Another process left.
    """
    ready, decision = f"{key}/ready", f"{key}/decision"
    store.add(ready, 1)
    while not store.check([decision]):
        if stop.requested():
            _decide(store, decision, _LEAVE)
        elif rank == 0 and store.add(ready, 0) == count:
            _decide(store, decision, _GO)
        else:
            time.sleep(_POLL)
    if _decide(store, decision, _LEAVE) != _GO:
        stop.check()
        raise LostProcessFault("another process was stopped before all were connected")


def _decide(store: Store, key: str, choice: bytes) -> bytes:
    """Return the decision, which is `choice` if there was none."""
    return store.compare_set(key, "", choice.decode())


def _without_a_word(_message: str) -> None:
    """Say nothing of a signal: connecting takes less than a second, and has no checkpoint."""
