"""Real vLLM servers, started from build/vllm, which `make vllm` makes."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhfctl.run.vllm_environment import MADE
from tests.conftest import tiny_recipe

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / MADE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here; skip them where vLLM is not installed."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.xdist_group("vllm"))
            if not PYTHON.is_file():
                item.add_marker(pytest.mark.skip(reason=f"no {MADE}; run `make vllm`"))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server with the embedded model, as a user would start it."""
    from rlhfctl.stages.ppo.vllm_server import server_command, server_environment

    folder = tmp_path_factory.mktemp("vllm")
    port = 8000 + os.getpid() % 20_000
    place = ["--host", "127.0.0.1", "--port", str(port)]
    command = server_command(tiny_recipe("ppo.engine=vllm"), PYTHON, place)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=server_environment(), stdout=log, stderr=log, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(f"{url}/health"):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def answers(url: str) -> bool:
    """Return True if a server answers a request with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
