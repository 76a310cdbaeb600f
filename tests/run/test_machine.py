import os
import subprocess
from pathlib import Path

import pytest

import rlhfctl
from rlhfctl.run.machine import machine


def test_hardware_names_the_processor_and_its_cores() -> None:
    hardware = machine()["hardware"]
    assert hardware.startswith(f"{os.cpu_count()} cores, ") or " x " in hardware
    assert not hardware.endswith(", ")


def test_the_commit_is_the_checkouts_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "rlhfctl" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(rlhfctl, "__file__", str(package))
    assert "commit" not in machine()

    def git(*arguments: str) -> str:
        person = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        command = ["git", "-C", str(tmp_path), *person, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "--short", "HEAD")
    assert machine()["commit"] == commit
    package.write_text("changed = True\n")
    assert machine()["commit"] == f"{commit}-dirty"
