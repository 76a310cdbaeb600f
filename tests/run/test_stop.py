"""Signals stop at once, or at the next safe point where that is deferred; a second one at once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlhfctl.run import stop
from rlhfctl.run.stop import Stopped


@pytest.fixture
def told():
    """Handle signals; the messages of deferred requests."""
    messages: list[str] = []
    with stop.handled():
        yield messages


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted; "),
        (signal.SIGTERM, 143, "terminated by SIGTERM; "),
        (signal.SIGUSR1, 143, "terminated by SIGUSR1; "),
    ],
)
@pytest.mark.usefixtures("told")
def test_a_signal_stops_at_once_with_its_code(number, code, said):
    with pytest.raises(Stopped) as caught:
        send(number)
    assert caught.value.exit_code == code
    assert str(caught.value).startswith(said)
    assert not caught.value.urgent


def test_a_deferred_signal_is_announced_and_waits_for_a_safe_point(told):
    with stop.deferred(told.append):
        send()
        assert stop.requested() == signal.SIGTERM
        until(lambda: told)
        with pytest.raises(Stopped):
            stop.check()
    assert "SIGTERM: stopping at the next safe point" in told[0]


def test_a_second_signal_does_not_wait(told):
    with stop.deferred(told.append):
        send(signal.SIGINT)
        with pytest.raises(Stopped) as caught:
            send(signal.SIGINT)
    assert caught.value.urgent


def test_a_deferred_request_stops_what_follows_that_may_stop_at_once(told):
    with stop.deferred(told.append):
        send()
        with pytest.raises(Stopped), stop.at_once():
            told.append("went on")
    assert "went on" not in told


def test_within_at_once_a_signal_does_not_wait(told):
    with stop.deferred(told.append), pytest.raises(Stopped) as caught, stop.at_once():
        send()
    assert not caught.value.urgent


@pytest.mark.usefixtures("told")
def test_a_launchers_signal_does_not_interrupt_the_end(monkeypatch):
    stop.begin(signal.SIGTERM)
    monkeypatch.setenv("LOCAL_RANK", "0")
    send()
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(Stopped):
        send()


@pytest.mark.usefixtures("told")
def test_a_stop_that_a_destructor_swallows_is_raised_again(monkeypatch):
    class Dropped:
        def __del__(self):
            send()

    monkeypatch.setattr(stop, "_RETRY", 0.2)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    dropped = Dropped()
    del dropped
    with pytest.raises(Stopped) as caught:
        time.sleep(10)
    assert not caught.value.urgent
    stop.begin(caught.value.number)
    time.sleep(0.5)


def test_handlers_are_restored_and_requests_forgotten():
    before = [signal.getsignal(number) for number in stop.SIGNALS]
    with pytest.raises(Stopped), stop.handled():
        send()
    assert [signal.getsignal(number) for number in stop.SIGNALS] == before
    assert stop.requested() == 0


def test_a_forked_worker_dies_of_the_signal(told):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"ready")
        time.sleep(30)
        os._exit(0)
    os.read(reader, 5)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert stop.requested() == 0


def test_a_signal_that_was_ignored_from_the_start_stays_ignored():
    code = (
        "import os, signal; from rlhfctl.run import stop; stop.install(); "
        "os.kill(os.getpid(), signal.SIGINT); print(stop.requested())"
    )
    done = subprocess.run(
        ["sh", "-c", f"trap '' INT; exec {sys.executable} -c '{code}'"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"


def test_another_thread_can_ask_for_the_stop_and_say_why(told):
    with pytest.raises(Stopped) as caught:
        threading.Thread(target=stop.request, args=("the launcher is gone",)).start()
        time.sleep(10)
    assert str(caught.value).startswith("the launcher is gone; ")
    assert caught.value.exit_code == 143


def until(reached):
    limit = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.01)
