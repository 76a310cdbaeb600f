"""Calls in processes of their own, with results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_MOST = 8

_call: Any = None


def worker_count() -> int:
    """Return the number of processes to use: the cores of this process, 8 at most."""
    available = getattr(os, "sched_getaffinity", None)
    cores = len(available(0)) if available else os.cpu_count() or 1
    return min(cores, _MOST)


def in_order(call: Callable[[_In], _Out], items: Iterable[_In], processes: int) -> Iterator[_Out]:
    """Yield the result of a call for each item, in the order of the items.

    Args:
        call: Sent once to each process, so it must be picklable.
        items: Taken while results are read, a few ahead.
        processes: Number of processes; 1 calls in this one.
    """
    if processes <= 1:
        yield from map(call, items)
        return
    # Started afresh: a fork would inherit threads' locks and a GPU's context.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(call,)
    )
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_apply, item))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(call: Callable[[Any], Any]) -> None:
    global _call  # noqa: PLW0603
    _call = call
    # One thread per process; the user's interrupt is the parent's business.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _apply(item: Any) -> Any:
    return _call(item)
