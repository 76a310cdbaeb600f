"""Real processes of the command line, in a folder of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = str(Path(__file__).with_name("tiny.py"))
Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
RECIPE = """name: small
seed: 3
model: {name_or_path: org/model}
data:
  demonstrations: {source: embedded}
  comparisons: {source: embedded}
  prompts: {source: embedded}
"""


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"RLHFCTL_RECIPE", "TINY", "CI", "FORCE_COLOR"}
    }
    return kept | {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def rlhfctl(folder: Path, environment: dict[str, str]) -> Command:
    """Run ``python -m rlhfctl``; with `tiny`, over the stages that take no time."""

    def run(
        *arguments: str | Path, tiny: bool = False, variables: dict[str, str] | None = None
    ) -> Done:
        start = [TINY] if tiny else ["-m", "rlhfctl"]
        return subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            cwd=folder,
            env=environment | (variables or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def tiny(rlhfctl: Command) -> Command:
    """Run the command line over tiny stages; `act` says what one of them does."""

    def run(*arguments: str | Path, act: str = "", variables: dict[str, str] | None = None) -> Done:
        return rlhfctl(*arguments, tiny=True, variables={"TINY": act, **(variables or {})})

    return run


@pytest.fixture(scope="session")
def whole_run(
    made_once: Callable[[str, Callable[[Path], tuple[Path, Done]]], tuple[Path, Done]],
    environment: dict[str, str],
) -> tuple[Path, Done]:
    """A whole run over tiny stages, made once: its folder, and the process that made it."""

    def make(folder: Path) -> tuple[Path, Done]:
        (folder / "small.yaml").write_text(RECIPE)
        done = subprocess.run(
            [sys.executable, TINY, "run", "small.yaml"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return folder, done

    return made_once("whole", make)


@pytest.fixture
def finished(whole_run: tuple[Path, Done], folder: Path) -> None:
    """A copy of that run in this test's folder."""
    shutil.copytree(whole_run[0] / "runs", folder / "runs")
