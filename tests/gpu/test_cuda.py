"""The pipeline on a CUDA GPU: `make test-gpu`, on a machine that has one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rlhfctl.errors import ExitCode
from tests.conftest import BASE_RECIPE, TINY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.gpu


def rlhfctl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = [argument for override in TINY for argument in ("--set", override)]
    command = [sys.executable, "-m", "rlhfctl", *arguments, "--runs-dir", str(folder), *settings]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)


def test_this_machine_has_a_gpu_that_torch_computes_on():
    import torch

    from rlhfctl.models.device import device

    assert device().type == "cuda"
    square = torch.full((64, 64), 2.0, device="cuda", dtype=torch.bfloat16) @ torch.ones(
        64, 64, device="cuda", dtype=torch.bfloat16
    )
    assert torch.equal(square.cpu(), torch.full((64, 64), 128.0, dtype=torch.bfloat16))


def test_the_four_stages_run_on_it_and_are_up_to_date_afterwards(tmp_path: Path) -> None:
    command = ["run", str(BASE_RECIPE), "--run", "gpu"]
    first = rlhfctl(tmp_path, *command)
    assert first.returncode == ExitCode.DONE, first.stderr
    again = rlhfctl(tmp_path, *command)
    assert again.returncode == ExitCode.DONE, again.stderr
    assert (
        again.stderr.count("up to date, skipped") + again.stdout.count("up to date, skipped") == 4
    )


def test_a_four_bit_base_trains_on_it(tmp_path: Path) -> None:
    done = rlhfctl(
        tmp_path, "sft", str(BASE_RECIPE), "--run", "four", "--set", "model.quantization=4bit"
    )
    assert done.returncode == ExitCode.DONE, done.stderr
