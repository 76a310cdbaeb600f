"""Processes connect together or not at all, whenever one of them is told to stop."""

import os
import signal
import threading
import time

import pytest

from rlhfctl.errors import LostProcessFault
from rlhfctl.run import stop
from rlhfctl.run.connection import await_all, connect_together

KEY = "connection"


@pytest.fixture
def store():
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


class Peer(threading.Thread):
    """Another process, as far as the store shows."""

    def __init__(self, store, rank):
        super().__init__(daemon=True)
        self.store, self.rank, self.result = store, rank, ""

    def run(self):
        try:
            await_all(self.store, self.rank, 2, KEY)
            self.result = "connects"
        except LostProcessFault:
            self.result = "leaves"
        except stop.Stopped:
            self.result = "stops"


def test_all_connect_once_the_last_is_ready(store):
    peer = Peer(store, 0)
    peer.start()
    time.sleep(0.15)
    assert peer.result == "", "the other is not ready yet"
    await_all(store, 1, 2, KEY)
    peer.join(5)
    assert peer.result == "connects"


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_is_stopped_before_the_others_are_ready_leaves_and_so_do_they(store, rank):
    with stop.handled(), stop.deferred(lambda _: None):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(stop.Stopped):
            await_all(store, rank, 2, KEY)
    peer = Peer(store, 1 - rank)
    peer.start()
    peer.join(5)
    assert peer.result == "leaves"


def test_one_that_is_stopped_after_the_decision_connects_first(store):
    store.compare_set(f"{KEY}/decision", "", "connect")
    with stop.handled(), stop.deferred(lambda _: None):
        os.kill(os.getpid(), signal.SIGTERM)
        await_all(store, 1, 2, KEY)


def test_a_signal_while_connecting_stops_the_process_afterwards(store, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    connected = []

    def connect():
        os.kill(os.getpid(), signal.SIGTERM)
        connected.append(True)

    with stop.handled(), pytest.raises(stop.Stopped):
        connect_together(connect, rank=0, count=1)
    assert connected == [True]


def test_without_a_launchers_store_it_connects_at_once(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    connected = []
    connect_together(lambda: connected.append(True), rank=0, count=2)
    assert connected == [True]
