"""A Hub that does not answer, by a port that nobody listens on."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

TINY = str(Path(__file__).with_name("tiny.py"))


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("command", ["sft", "run"])
def test_a_model_that_is_not_cached_is_refused_after_one_request(
    folder, environment, closed_port, command, tmp_path
):
    variables = {
        **environment,
        "HF_ENDPOINT": f"http://127.0.0.1:{closed_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "cache"),
    }
    # The Hub's client reads these variables as it is imported, so the process is a new one.
    done = subprocess.run(
        [sys.executable, TINY, command, "small.yaml"],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4
    assert (
        "model.name_or_path: org/model: is not on this machine, and the Hub cannot be"
        in done.stderr
    )
    assert "Retry" not in done.stderr
    assert not (folder / "runs").exists()
