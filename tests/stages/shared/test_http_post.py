"""Servers that drip, never end, or send bombs, over real sockets."""

import json
import socket
import threading
import time

import httpx2
import pytest

from rlhfctl.errors import DataError, EnvironmentFault
from rlhfctl.recipe.judges import JudgeEndpointSection
from rlhfctl.recipe.reward_sources import RewardSourceSection
from rlhfctl.stages.evaluation.judge_endpoint import Endpoint
from rlhfctl.stages.shared.http_post import AnswerError, post
from rlhfctl.stages.shared.reward_server import RewardServer
from rlhfctl.stages.shared.timed_calls import run_async

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DEEP = b'{"scores": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"


def drip_body(connection):
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def drip_headers(connection):
    connection.sendall(HEAD + b"X-Slow: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.02)


def endless(connection):
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" " * (1 << 20))


def nested(connection):
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(DEEP) + DEEP)


@pytest.fixture
def serve():
    """Start a server that answers every connection with a function; return its address."""
    listeners = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def work():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(1 << 16)
                        answer(connection)
                    except OSError:
                        continue

        threading.Thread(target=work, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def posted(url, seconds):
    async def call():
        async with httpx2.AsyncClient(timeout=seconds) as client:
            return await post(client, url, b"{}", seconds)

    return run_async(call())


@pytest.mark.parametrize("answer", [drip_body, drip_headers])
def test_a_server_that_drips_has_a_deadline_for_the_whole_answer(serve, answer):
    started = time.monotonic()
    with pytest.raises(AnswerError, match=r"no complete answer within 0\.2 seconds"):
        posted(serve(answer), 0.2)
    assert time.monotonic() - started < 2


def test_an_endless_answer_is_cut_off(serve):
    with pytest.raises(AnswerError, match="longer than 8 MiB"):
        posted(serve(endless), 30)


def test_a_reward_server_of_that_kind_is_an_error_in_one_sentence(serve):
    for answer, words in ((endless, "longer than 8 MiB"), (nested, "nested too deeply")):
        server = RewardServer(RewardSourceSection(source=serve(answer), retries=0))
        with pytest.raises(EnvironmentFault, match=words):
            run_async(server(prompts=["a"]))


def test_a_judge_of_that_kind_is_an_error_in_one_sentence(serve, tmp_path):
    for answer, words in ((endless, "longer than 8 MiB"), (nested, "no chat completion")):
        section = JudgeEndpointSection(url=serve(answer), model="m", retries=0)
        with pytest.raises(EnvironmentFault, match=words):
            Endpoint(section, tmp_path / "cache").ask([[]], lambda _: None)


def test_a_cache_that_was_cut_within_a_character_is_read_again(serve, tmp_path, caplog):
    cache = tmp_path / "cache.jsonl"
    reply = {"key": "k", "reply": {"text": "größer", "refused": False}}
    line = json.dumps(reply, ensure_ascii=False).encode()
    cache.write_bytes(line + b"\n" + line[: line.index("ö".encode()) + 1])
    section = JudgeEndpointSection(url="http://host", model="m")
    for _ in range(2):
        Endpoint(section, cache)
    assert cache.read_bytes() == line + b"\n"
    assert caplog.text.count("was cut short and is left out") == 1
    for damaged in (b"[" * 9_000, b"[]", b'{"key": 1, "reply": {"text": "", "refused": false}}'):
        cache.write_bytes(damaged + b"\n")
        with pytest.raises(DataError, match="damaged"):
            Endpoint(section, cache)
