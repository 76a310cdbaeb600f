"""A real server of OpenAI's chat completions on this machine."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Answer = str | tuple[int, dict[str, str], object]
"""Text of a completion, `silence`, or status, headers and body."""


class ChatServer(ThreadingHTTPServer):
    """Answers from `answers` first, then by `judge`, and keeps what it was asked.

    Attributes:
        judge: Makes the answer to a request's body.
        answers: Answers to the next requests.
        slow: Seconds before an answer.
        asked: Bodies of the requests.
        keys: Their Authorization headers.
        paths: Their paths.
        now: Number of requests being answered.
        most: Highest number of requests answered at the same time.
        gone: Number of clients that left before their answer.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.judge: Callable[[dict[str, Any]], Answer] = lambda _body: "[[A]]"
        self.answers: list[Answer] = []
        self.slow = 0.0
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.now = self.most = self.gone = 0


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            server.keys.append(self.headers.get("Authorization"))
            server.paths.append(self.path)
            server.now += 1
            server.most = max(server.most, server.now)
            step = server.answers.pop(0) if server.answers else server.judge(body)
        time.sleep(server.slow)
        if step == "silence":
            time.sleep(1.0)
            step = server.judge(body)
        status, headers, answer = step if isinstance(step, tuple) else (200, {}, completion(step))
        with server.lock:
            server.now -= 1
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
        except BrokenPipeError:
            server.gone += 1

    def log_message(self, *_: object) -> None:
        pass


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A server of chat completions; `answers` come first: text, (status, headers, body) or silence.

    Afterwards `judge` makes the text from what was asked.
    """
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
