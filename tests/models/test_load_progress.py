"""Downloads publish their bytes, and loading its weights, through the libraries' own bars."""

import functools
import http.server
import threading
import time

import pytest
from huggingface_hub import constants
from huggingface_hub.file_download import http_get

from rlhfctl import activity
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.load_progress import published
from rlhfctl.recipe.schema import ModelSection


@pytest.fixture
def heard():
    activities: list[activity.Activity | None] = []
    with activity.listening(activities.append):
        yield activities


class Handler(http.server.SimpleHTTPRequestHandler):
    """Sends a file slowly enough that a bar is drawn before its end."""

    def log_message(self, *_):
        """Write nothing to stderr."""

    def copyfile(self, source, outputfile):
        while part := source.read(100_000):
            outputfile.write(part)
            outputfile.flush()
            time.sleep(0.06)


@pytest.fixture
def address(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(500_000))
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/model.safetensors"
        server.shutdown()


def test_a_download_publishes_its_bytes(heard, address, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    with published("model") as arguments, (tmp_path / "copy").open("wb") as file:
        http_get(address, file, expected_size=500_000, tqdm_class=arguments["tqdm_class"])
    assert (tmp_path / "copy").stat().st_size == 500_000
    counts = [work for work in heard if work and work.unit == activity.BYTES]
    assert {(work.name, work.total) for work in counts} == {("downloading model", 500_000)}
    done = [work.done for work in counts]
    assert done == sorted(done)
    assert done[-1] == 500_000
    assert len(set(done)) > 2
    assert heard[-1] is None


def test_loading_publishes_its_weights_and_draws_nothing(heard, capfd):
    load_causal_lm(ModelSection())
    counts = [work for work in heard if work and work.unit == "weights"]
    assert counts
    assert all(0 <= work.done <= (work.total or 0) for work in counts)
    assert heard[-1] is None
    assert capfd.readouterr() == ("", "")
