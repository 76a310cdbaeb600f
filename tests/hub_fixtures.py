"""A Hub with the embedded model, a reward model, data sets, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rlhfctl.world.model import embedded_path
from tests.hub_server import HubServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Script = Callable[[str], Any] if TYPE_CHECKING else object
PAIR = {"prompt": "What is 1 plus 1?", "chosen": "Two.", "rejected": "Three."}


def _jsonl(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(PAIR | {"prompt": f"What is {row} plus 1?"}) for row in range(rows)]
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("hub")
    models, data = root / "models" / "org", root / "datasets" / "org"
    shutil.copytree(embedded_path(), models / "tiny")
    (models / "tiny" / "consolidated.safetensors").write_bytes(b"a twin" * 1000)
    (models / "tiny" / "pytorch_model.bin").write_bytes(b"a twin" * 1000)
    for name in ("gated", "private"):
        (models / name).mkdir()
        (models / name / "model.safetensors").write_bytes(b"")
    (models / "pickled").mkdir()
    (models / "pickled" / "config.json").write_text("{}")
    (models / "pickled" / "pytorch_model.bin").write_bytes(b"a pickle")
    _jsonl(data / "pairs" / "train.jsonl", 40)
    _jsonl(data / "pairs" / "test.jsonl", 8)
    for name in ("configs", "gated", "private"):
        _jsonl(data / name / "train.jsonl", 4)
    configs = [{"config_name": name, "data_files": "train.jsonl"} for name in ("one", "two")]
    (data / "configs" / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    (data / "script").mkdir()
    (data / "script" / "script.py").write_text("raise SystemExit")
    (data / "broken").mkdir()
    (data / "broken" / "train.jsonl").write_text('{"prompt": "a"}\n{"prompt": [1')
    (data / "bare").mkdir()
    (data / "bare" / "notes.xyz").write_text("no data")
    with HubServer(root) as server:
        yield server


@pytest.fixture(scope="session")
def hub_environment(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process that uses this Hub and a cache that the session's tests share."""
    unset = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    home = tmp_path_factory.mktemp("home")
    return inherited | hub.environment(home) | {"NO_COLOR": "1", "COLUMNS": "80"}


@pytest.fixture
def outcomes(hub_environment: dict[str, str], tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Run calls in a process that uses the Hub: ``[[error class, message], ...]`` or results."""

    def run(code: str, calls: list[str], **variables: str) -> list[list[str]]:
        script = f"""import json
{code}
results = []
for call in json.loads({json.dumps(calls)!r}):
    try:
        results.append(["", str(eval(call))])
    except Exception as error:
        results.append([type(error).__name__, str(error)])
print(json.dumps(results))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=hub_environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
        return results

    return run
