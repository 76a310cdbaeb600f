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


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_ligers_kernels_give_the_same_states_and_gradients(kind: str) -> None:
    pytest.importorskip("liger_kernel")
    import torch

    from benchmarks.tiny_models import tiny_model
    from rlhfctl.models.liger import use_liger_kernels

    ids = torch.randint(3, 60, (4, 16), device="cuda")
    outcomes = []
    for patched in (False, True):
        model = tiny_model(kind).cuda()
        if patched:
            use_liger_kernels(model)
        states = model.model(ids, use_cache=False)[0]
        weights = [p for p in model.model.parameters() if p.requires_grad]
        outcomes.append([states, *torch.autograd.grad(states.square().sum(), weights)])
    for plain, quick in zip(*outcomes, strict=True):
        assert float((quick - plain).abs().max()) < 1e-3 * float(plain.abs().max())


def test_the_stages_sample_by_a_static_cache_on_it(tmp_path: Path) -> None:
    """The compiled pass is a CUDA graph here."""
    static = ["--set", "generation.cache_implementation=static"]
    done = rlhfctl(tmp_path, "run", str(BASE_RECIPE), "--run", "static", *static)
    assert done.returncode == ExitCode.DONE, done.stderr
