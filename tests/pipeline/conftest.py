"""Runs of small stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rlhfctl.pipeline import StageResult, run_stages
from rlhfctl.run.directory import RunDirectory
from tests.pipeline.small_stages import Listener, Stages, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "runs" / "one")


@pytest.fixture
def stages() -> Stages:
    return Stages()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def go(directory: RunDirectory, stages: Stages, listener: Listener) -> Callable[..., Any]:
    def go(
        names: Sequence[str], changes: Mapping[str, Any] | None = None, **more: Any
    ) -> list[StageResult]:
        stages.ran.clear()
        listener.notes.clear()
        listener.warnings.clear()
        return run_stages(recipe(changes), directory, names, listener, load=stages, **more)

    return go
