"""Servers that refuse, fail, stall or answer nonsense in the form of vLLM's endpoints."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlhfctl.errors import EnvironmentFault
from rlhfctl.stages.ppo.vllm_client import (
    EngineDownError,
    Sampling,
    Server,
    complete,
    is_ready,
    load_adapter,
)
from rlhfctl.stages.shared.timed_calls import run_async

SAMPLING = Sampling(temperature=0.5, max_new_tokens=3, stop_token_ids=(1,), vocabulary=10, rows=12)
GOOD = {"token_ids": [4, 1], "logprobs": {"token_logprobs": [-0.5, 0]}, "finish_reason": "stop"}


class Fake:
    """A server with one answer: a status and a body, or text to send as it is.

    The first `failures` requests to load an adapter are answered 500.
    """

    def __init__(self):
        self.status, self.seconds, self.failures = 200, 0.0, 0
        self.body: Any = {}
        self.asked: list[tuple[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.asked.append((self.path, json.loads(body or "null")))
                fails = fake.failures > 0 and self.path.endswith("load_lora_adapter")
                fake.failures -= fails
                self.answer(500 if fails else fake.status)

            def do_GET(self):
                self.answer(fake.status)

            def answer(self, status):
                threading.Event().wait(fake.seconds)
                body = fake.body if isinstance(fake.body, str) else json.dumps(fake.body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):  # the client did not wait
                    self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = Server(f"http://127.0.0.1:{self.server.server_port}")

    def choice(self, **changes):
        self.body = {"choices": [{**GOOD, **changes}]}


@pytest.fixture
def fake():
    fake = Fake()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def ask(address, seconds=5.0):
    async def asked():
        async with address.client() as client:
            body = SAMPLING.request("name", [7, 8], 123)
            return await complete(client, address, body, SAMPLING, seconds)

    return run_async(asked())


def test_a_request_has_token_ids_seed_and_stops_and_only_neutral_values_besides(fake):
    fake.choice()
    completion = ask(fake.address)
    assert (completion.ids, completion.log_probs) == ([4, 1], [-0.5, 0.0])
    [(path, body)] = fake.asked
    assert path == "/v1/completions"
    assert body == {
        "model": "name",
        "prompt": [7, 8],
        "seed": 123,
        "temperature": 0.5,
        "max_tokens": 3,
        "stop_token_ids": [1],
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "min_tokens": 0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        # rows of the LM head that are padding
        "logit_bias": {"10": -100.0, "11": -100.0},
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"token_ids": None}, "not those of a response"),
        ({"token_ids": []}, "not those of a response"),
        ({"token_ids": [4, True]}, "not those of a response"),
        ({"token_ids": [4, 11]}, "not those of a response"),
        ({"token_ids": [4]}, "not those of a response"),
        ({"logprobs": {"token_logprobs": [-0.5, None]}}, "not those of a response"),
        ({"logprobs": None}, "no completion with token ids and logprobs"),
        ({"token_ids": [4, 5], "finish_reason": "length"}, "after 2 of 3 tokens without a stop"),
    ],
)
def test_an_answer_that_is_no_response_is_refused(fake, changes, told):
    fake.choice(**changes)
    with pytest.raises(EnvironmentFault, match=told):
        ask(fake.address)


def test_a_refusal_shows_the_servers_own_words(fake):
    fake.status, fake.body = 404, {"error": {"message": "no such adapter"}}
    with pytest.raises(EnvironmentFault, match="it answered 404 Not Found: no such adapter"):
        ask(fake.address)


@pytest.mark.parametrize(
    ("status", "seconds", "told"),
    [(500, 0.0, "it answered 500"), (200, 0.5, "no complete answer within 0.1 seconds")],
)
def test_a_failure_or_a_stall_asks_for_another_start(fake, status, seconds, told):
    fake.status, fake.seconds, fake.body = status, seconds, "not JSON"
    with pytest.raises(EngineDownError, match=told):
        ask(fake.address, 0.1 if seconds else 5.0)


def test_a_server_that_is_gone_asks_for_another_start(fake):
    fake.server.shutdown()
    fake.server.server_close()
    with pytest.raises(EngineDownError):
        ask(fake.address)

    async def ready():
        async with fake.address.client() as client:
            return await is_ready(client, fake.address)

    assert run_async(ready()) is False


def test_an_adapter_is_loaded_in_place_from_a_path(fake):
    async def load():
        async with fake.address.client() as client:
            await load_adapter(client, fake.address, "name", Path("/a/b"), 5.0)

    # In a thread: playwright, in the same worker, leaves an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, load()).result()
    body = {"lora_name": "name", "lora_path": "/a/b", "load_inplace": True}
    assert fake.asked == [("/v1/load_lora_adapter", body)]
