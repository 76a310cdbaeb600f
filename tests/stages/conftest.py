"""A real server of OpenAI's chat completions on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
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

    def log_message(self, *_):
        pass


def completion(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def chat_server():
    """A server of chat completions; `answers` come first: text, (status, headers, body) or silence.

    Afterwards `judge` makes the text from what was asked.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.lock = threading.Lock()
    server.asked, server.answers, server.keys, server.paths = [], [], [], []
    server.now = server.most = server.gone = 0
    server.slow = 0.0
    server.judge = lambda _body: "[[A]]"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
