"""Real processes of the command line, in a folder of their own."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forked
from tests.cli.tiny import install

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
    """Run ``rlhfctl`` in a forked process; with `tiny`, over the stages that take no time."""

    def run(
        *arguments: str | Path, tiny: bool = False, variables: dict[str, str] | None = None
    ) -> Done:
        return forked.rlhfctl(
            folder,
            arguments,
            environment | (variables or {}),
            timeout=120,
            prepare=install if tiny else bool,
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
        arguments = ["run", "small.yaml"]
        return folder, forked.rlhfctl(folder, arguments, environment, prepare=install)

    return made_once("whole", make)


@pytest.fixture
def finished(whole_run: tuple[Path, Done], folder: Path) -> None:
    """A copy of that run in this test's folder."""
    shutil.copytree(whole_run[0] / "runs", folder / "runs")
