"""Device of a process, and the precision that it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate.utils import parse_flag_from_env

from rlhfctl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import ModelSection


def _on_cpu_by_choice() -> bool:
    """Return whether accelerate's variable is set, as `accelerate launch --cpu` does."""
    return bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


def _uses_cuda() -> bool:
    return torch.cuda.is_available() and not _on_cpu_by_choice()


def device() -> torch.device:
    """Return the device of this process: its CUDA or ROCm GPU, else the CPU."""
    return (
        torch.device("cuda", torch.cuda.current_device()) if _uses_cuda() else torch.device("cpu")
    )


def unused_accelerator() -> str | None:
    """Return the name of a GPU that torch could use and rlhfctl does not; None if there is none."""
    if _uses_cuda() or _on_cpu_by_choice():
        return None
    if torch.backends.mps.is_available():
        return "Apple's GPU (MPS)"
    if torch.xpu.is_available():
        return "Intel's GPU (XPU)"
    return None


def check_device(section: ModelSection) -> None:
    """Check that a real model is not trained on the CPU beside a GPU without the user's word.

    Raises:
        EnvironmentFault: There is a GPU of a kind that rlhfctl does not use.
    """
    unused = unused_accelerator()
    if unused is not None and section.name_or_path != "embedded":
        raise EnvironmentFault(
            f"rlhfctl uses CUDA and ROCm GPUs and CPUs, not {unused}",
            hint="Set ACCELERATE_USE_CPU=1 to train on the CPU here, or use a machine with a CUDA GPU.",
        )


def device_notes(section: ModelSection) -> Iterator[str]:
    """Yield a sentence for each thing about device and precision that a user may not expect."""
    unused = unused_accelerator()
    if unused is not None:
        yield f"the embedded model is trained on the CPU: rlhfctl does not use {unused}"
    if not _uses_cuda():
        return
    name = torch.cuda.get_device_name()
    if torch.version.hip is not None:
        yield f"{name} is used through ROCm {torch.version.hip}"
    if section.dtype == "auto" and not _computes_in_bfloat16():
        yield f"{name} only emulates bfloat16, so the model computes in float16"
    if section.dtype == "bfloat16" and not _computes_in_bfloat16():
        yield f"{name} only emulates bfloat16, slowly; model.dtype: auto computes in float16"


def _computes_in_bfloat16() -> bool:
    """Return whether the GPU has bfloat16 itself; torch also says so of cards that emulate it."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def release_cached_memory() -> None:
    """Give GPU memory that no tensor holds back to the device, for another process to take."""
    if _uses_cuda():
        torch.cuda.empty_cache()


def flush_denormals() -> None:
    """Let CPU arithmetic round denormal numbers (below 1.2e-38 in fp32) to zero, where it can.

    Gradients at padding and at tokens that attention ignores underflow to such numbers, with which
    processors compute many times slower: training a reward model took 1.5 times as long.
    """
    torch.set_flush_denormal(True)


def effective_quantization(section: ModelSection) -> str:
    """Return `none`, `4bit` or `8bit`; `auto` is 4-bit on a CUDA GPU."""
    if section.quantization == "auto":
        return "4bit" if _uses_cuda() else "none"
    return section.quantization


def effective_dtype(section: ModelSection) -> torch.dtype:
    """Return the dtype of the base's weights and passes.

    `auto` is float32 on a CPU, bfloat16 on a GPU that computes in it, and float16 on older ones
    such as a T4 or V100.
    """
    if section.dtype == "auto":
        if not _uses_cuda():
            return torch.float32
        return torch.bfloat16 if _computes_in_bfloat16() else torch.float16
    dtype: torch.dtype = getattr(torch, section.dtype)
    return dtype


def trainer_precision(section: ModelSection) -> dict[str, bool]:
    """Return the arguments of transformers' trainer for device and mixed precision.

    With `fp16` it scales the loss: gradients of states pass through the base in float16, where
    those below 6e-8 would be lost. accelerate offers that on a GPU only; on a CPU float16 weights
    are trained without a scale, which serves for tests.
    """
    dtype, on_gpu = effective_dtype(section), _uses_cuda()
    return {
        "use_cpu": not on_gpu,
        "bf16": dtype is torch.bfloat16,
        "fp16": dtype is torch.float16 and on_gpu,
        "dataloader_pin_memory": on_gpu,
    }
