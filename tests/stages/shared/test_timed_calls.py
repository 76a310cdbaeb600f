"""Plain and async calls: their results, errors, limits and concurrency."""

import asyncio
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rlhfctl.stages.shared.timed_calls import (
    CallTimeoutError,
    is_async,
    run_async,
    start_call,
)


async def later(x):
    await asyncio.sleep(0)
    return x + 1


class Later:
    async def __call__(self, x):
        return x + 1


def now(x):
    return x + 1


@pytest.mark.parametrize("function", [later, functools.partial(later), Later()])
@pytest.mark.parametrize("limit", [None, 5.0])
def test_async_functions_are_awaited(function, limit):
    assert is_async(function)
    assert start_call(function, {"x": 1}, limit)() == 2


@pytest.mark.parametrize("limit", [None, 5.0])
def test_plain_functions_are_called(limit):
    assert not is_async(now)
    assert start_call(now, {"x": 1}, limit)() == 2


def test_async_functions_that_were_started_together_run_together():
    """Each waits for the other, so one after the other would never end."""
    arrived = [asyncio.Event(), asyncio.Event()]

    async def meet(number):
        arrived[number].set()
        await arrived[1 - number].wait()
        return number

    waits = [start_call(meet, {"number": number}, 5.0) for number in range(2)]
    assert [wait() for wait in waits] == [0, 1]


def test_without_a_limit_a_plain_function_stays_in_its_thread():
    assert start_call(threading.current_thread, {}, None)() is threading.current_thread()
    assert start_call(threading.current_thread, {}, 5.0)() is not threading.current_thread()


@pytest.mark.parametrize("limit", [None, 5.0])
@pytest.mark.parametrize("error", [KeyError("a"), TimeoutError("own")])
def test_the_function_s_own_error_is_raised(limit, error):
    def fail():
        raise error

    async def fail_later():
        raise error

    for function in (fail, fail_later):
        with pytest.raises(type(error)) as caught:
            start_call(function, {}, limit)()
        assert caught.value.args == error.args


def test_a_call_beyond_its_limit_is_left_behind():
    release = threading.Event()
    started = time.monotonic()
    for function in (release.wait, functools.partial(asyncio.sleep, 60)):
        with pytest.raises(CallTimeoutError):
            start_call(function, {}, 0.05)()
    assert time.monotonic() - started < 5
    release.set()


def test_functions_run_without_gradients_in_other_threads_too():
    async def enabled():
        return torch.is_grad_enabled()

    assert not start_call(enabled, {}, None)()
    assert not start_call(torch.is_grad_enabled, {}, 5.0)()


def test_a_coroutine_is_waited_for_where_an_event_loop_runs_already():
    async def answer():
        await asyncio.sleep(0)
        return 42

    async def notebook():
        return run_async(answer())

    # In a thread, since a browser's test may have left an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, notebook()).result() == 42
