"""Calls of users' functions, plain or async, within a time limit."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rlhfctl.errors import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call gives a coroutine; partial functions and callable objects included."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 (the method itself is inspected)
    )


def start_call(
    function: Callable[..., Any], arguments: dict[str, Any], limit: float | None
) -> Callable[[], Any]:
    """Start a call, and return a function that waits for its result.

    Async functions start at once, and those that were started together run concurrently. Plain
    functions run when they are waited for: in the caller's thread, or in another one if there is a
    limit. A call that exceeds its limit is abandoned.

    Args:
        function: Plain or async function.
        arguments: Its keyword arguments.
        limit: Longest time in seconds; None: no limit.

    Returns:
        A function that returns the result, or raises the call's own exception, CallTimeoutError or
        CallExitError.
    """
    if is_async(function):
        deadline = None if limit is None else time.monotonic() + limit
        future = asyncio.run_coroutine_threadsafe(_awaited(function, arguments), _event_loop())
        return lambda: _result(future, None if deadline is None else deadline - time.monotonic())
    if limit is None:
        return lambda: contained(lambda: function(**arguments))
    return lambda: _result(_in_thread(lambda: contained(lambda: function(**arguments))), limit)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, also where an event loop runs already, as in a notebook.

    If the wait ends early, as by Ctrl-C, the coroutine is cancelled.
    """
    future = asyncio.run_coroutine_threadsafe(work, _event_loop())
    try:
        return future.result()
    finally:
        future.cancel()


class CallExitError(Exception):
    """A call tried to end the process, as `sys.exit` does."""


def contained(call: Callable[[], T]) -> T:
    """Return a call's result; an exception that would end the process becomes an error.

    Raises:
        CallExitError: The call raised SystemExit or another exception that is no Exception.
        StopRequest: The process is to stop, as after KeyboardInterrupt.
    """
    try:
        return call()
    except (Exception, KeyboardInterrupt, StopRequest):
        raise
    except BaseException as error:
        raise _exit_error(error) from error


def _exit_error(error: BaseException) -> CallExitError:
    argument = "" if error.args == () else repr(error.args[0])
    name = "sys.exit" if isinstance(error, SystemExit) else f"raise {type(error).__name__}"
    return CallExitError(f"it tried to end the process by {name}({argument})")


async def _awaited(function: Callable[..., Coroutine[Any, Any, Any]], arguments: Any) -> Any:
    try:
        return await function(**arguments)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        # asyncio would end the event loop, and nothing would ever answer.
        raise _exit_error(error) from error


def _result(future: Future[Any], seconds: float | None) -> Any:
    try:
        return future.result(None if seconds is None else max(0.0, seconds))
    except TimeoutError:
        if future.done():  # the function's own
            raise
        future.cancel()
        raise CallTimeoutError from None


class CallTimeoutError(Exception):
    """A call took longer than its limit."""


def _in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a thread that does not keep the process alive."""
    future: Future[Any] = Future()

    def run() -> None:
        # A running future cannot be cancelled, so its result can be set after the limit.
        future.set_running_or_notify_cancel()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    _start_thread(run)
    return future


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    _start_thread(loop.run_forever)
    return loop


def _start_thread(work: Callable[[], Any]) -> None:
    """Start a daemon thread with this thread's CUDA device and without gradients.

    torch holds both per thread, and a function that calls a model would use the first GPU.
    """
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        if device is not None:
            torch.cuda.set_device(device)
        torch.set_grad_enabled(False)
        work()

    threading.Thread(target=run, name="reward function", daemon=True).start()
