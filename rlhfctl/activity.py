"""The work within a step, such as sampling or a download: published here, shown by a listener.

Published like log messages: code that works for a while publishes where it is, whether or not
anything listens. Nothing is written to the run folder.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BYTES = "bytes"
"""Unit that is shown in MB or GB."""


@dataclass(frozen=True)
class Activity:
    """Work that is being done.

    Attributes:
        name: What is done, such as `generating`.
        done: Units done.
        total: Units in all; None if unknown.
        unit: `BYTES`, another plural noun, or empty.
    """

    name: str
    done: int = 0
    total: int | None = None
    unit: str = ""

    def __str__(self) -> str:
        """Return name and count, such as ``generating 200/512``."""
        if self.unit == BYTES:
            of = f" of {byte_size(self.total)}" if self.total else ""
            return f"{self.name} {byte_size(self.done)}{of}"
        if self.total is None:
            return self.name
        return f"{self.name} {self.done:,}/{self.total:,} {self.unit}".rstrip()


_lock = threading.Lock()
_listeners: list[Callable[[Activity | None], None]] = []
_outer: list[str] = []


@contextmanager
def listening(listener: Callable[[Activity | None], None]) -> Iterator[None]:
    """Call a listener with every activity, and with None when one ends, within the context.

    Calls may come from any thread.
    """
    with _lock:
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def is_listened_to() -> bool:
    """Return whether a count is worth its computation."""
    return bool(_listeners)


def publish(name: str, done: int = 0, total: int | None = None, unit: str = "") -> None:
    """Publish the current work; replaces what was published before."""
    _tell(Activity(" ".join((*_outer, name)), done, total, unit))


def clear() -> None:
    """Publish that the work is done."""
    _tell(None)


@contextmanager
def within(name: str) -> Iterator[None]:
    """Put a name in front of what is published within the context, and publish its end."""
    _outer.append(name)
    try:
        yield
    finally:
        _outer.pop()
        clear()


def byte_size(count: int | None) -> str:
    """Return a number of bytes with a decimal unit: ``12 MB``, ``1.3 GB``."""
    size = float(count or 0)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _tell(current: Activity | None) -> None:
    with _lock:
        listeners = tuple(_listeners)
    for listener in listeners:
        listener(current)
