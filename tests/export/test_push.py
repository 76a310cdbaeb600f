"""Uploads: which files, to what kind of repository, by a server that speaks the Hub's endpoints."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rlhfctl.errors import EnvironmentFault, UnsafeError, UsageError
from rlhfctl.export import push as pushing
from rlhfctl.export.options import CardOptions, ExportOptions, PushOptions
from rlhfctl.recipe.schema import ModelSection

REPOSITORY = "me/policy"
UPLOADED = {
    "README.md": "---\nlicense: mit\n---\n" + 'folder = "."\n',
    "adapter_config.json": "{}",
    "adapter_model.safetensors": "weights" * 1000,
    "chat_template.jinja": "{{ messages }}",
}
PRIVATE = {
    "training_args.bin": "x",
    "optimizer.pt": "x",
    "sealed.json": "{}",
    "rlhfctl.json": "{}",
    "checkpoints/step-1/adapter_model.safetensors": "x",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in (UPLOADED | PRIVATE).items():
        path = tmp_path / "export" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "export" / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    (tmp_path / "elsewhere.json").write_text("{}")
    return tmp_path / "export"


class Hub(ThreadingHTTPServer):
    """The endpoints of an upload; `failures` requests are answered by 503 first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.private: bool | None = None
        self.failures = 0
        self.large: dict[str, bytes] = {}
        self.committed: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.transfers = 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Endpoint(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        hub = self.server
        info: dict[str, Any] = {
            "id": REPOSITORY,
            "private": hub.private,
            "siblings": [],
            "tags": [],
        }
        self.answer(info if hub.private is not None else {"error": "no"}, 200)

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.transfers += 1
        self.server.large[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def do_POST(self):
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.failures and "commit" in self.path:
            hub.failures -= 1
            return self.answer({"error": "busy"}, 503)
        if self.path.endswith("/repos/create"):
            created = hub.private is None
            if created:
                hub.private = json.loads(body)["visibility"] == "private"
            return self.answer({"url": f"{hub.address}/{REPOSITORY}"}, 200 if created else 409)
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer({"files": [self.mode(file["path"]) for file in files]})
        if self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            return self.answer(
                {"objects": [self.place(one) for one in objects], "transfer": "basic"}
            )
        if "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
            url = f"{hub.address}/{REPOSITORY}/commit/{'a' * 40}"
            return self.answer({"commitOid": "a" * 40, "commitUrl": url, "success": True})
        return self.answer({})

    def mode(self, path):
        large = path.endswith(".safetensors")
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def place(self, one):
        known = one["oid"] in self.server.large
        upload = {"upload": {"href": f"{self.server.address}/put/{one['oid']}"}}
        return one if known else {**one, "actions": upload}

    def commit(self, lines):
        import base64

        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.committed[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.committed[value["path"]] = self.server.large[value["oid"]]


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", server.address, raising=False)
    monkeypatch.setattr(pushing, "FIRST_PAUSE", 0.01)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_only_known_names_at_the_top_are_uploaded(folder):
    upload = pushing.files_to_upload(folder)
    assert upload.files == {name: len(text) for name, text in UPLOADED.items()}
    assert set(upload.left_out) == {*PRIVATE, "tokenizer.json"}


def test_an_upload_is_private_complete_and_adapts_the_card(folder, hub):
    pushing.push(folder, PushOptions(REPOSITORY))
    assert hub.private is True
    assert hub.tokens == {"Bearer hf_secret"}
    expected = {name: text.encode() for name, text in UPLOADED.items()}
    expected["README.md"] = expected["README.md"].replace(b'"."', f'"{REPOSITORY}"'.encode())
    assert hub.committed == expected


def test_a_busy_hub_is_asked_again_and_sent_no_file_twice(folder, hub):
    hub.failures = 2
    pushing.push(folder, PushOptions(REPOSITORY))
    pushing.push(folder, PushOptions(REPOSITORY))
    assert hub.committed.keys() == UPLOADED.keys()
    assert hub.transfers == 1


def test_a_hub_that_does_not_recover_is_an_error_of_the_environment(folder, hub):
    hub.failures = 10**6
    with pytest.raises(EnvironmentFault, match="the upload failed") as error:
        pushing.push(folder, PushOptions(REPOSITORY))
    assert "repeat the command" in error.value.hint


def test_a_public_repository_is_refused_without_public(folder, hub):
    hub.private = False
    with pytest.raises(UnsafeError, match="exists and is public"):
        pushing.push(folder, PushOptions(REPOSITORY))
    assert hub.committed == {}
    pushing.push(folder, PushOptions(REPOSITORY, public=True))
    assert hub.committed.keys() == UPLOADED.keys()


def test_a_token_comes_from_the_environment_only(monkeypatch):
    for name in pushing.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentFault, match="no access token") as error:
        pushing.token()
    assert "HF_TOKEN" in error.value.hint


@pytest.mark.parametrize("name", ["", "policy", "me/policy/x", "-me/x", "me/"])
def test_a_name_that_is_no_repository_is_refused(name):
    with pytest.raises(UsageError):
        pushing.require_repository(PushOptions(name))


def test_an_adapter_on_a_local_base_is_refused(tmp_path):
    section = ModelSection(name_or_path=str(tmp_path))
    with pytest.raises(UsageError, match="this base is on this machine"):
        pushing.require_public_base(ExportOptions("ppo"), section, adapter=True)
    stated = ExportOptions("ppo", card=CardOptions(base_model="org/base"))
    for options in (stated, ExportOptions("ppo", merge=True)):
        pushing.require_public_base(options, section, adapter=True)
