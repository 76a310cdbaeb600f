"""Devices that a run is planned for: memory, precision, and speed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlhfctl.errors import UsageError

if TYPE_CHECKING:
    import torch

    from rlhfctl.recipe.schema import ModelSection

GIB = 2**30
CUDA_CONTEXT = 640 * 2**20
"""Bytes of a GPU that CUDA's context and the libraries' kernels take; not measured here. 0.3 to 0.6
GiB are usually seen in nvidia-smi beside an idle process of torch."""
LIBRARIES = 1100 * 2**20
"""Resident bytes of a process with torch, transformers, peft and TRL loaded, as measured on Linux by
benchmarks/plan.py (`bare_bytes`)."""
TIGHT = 0.9
"""Share of the usable memory above which a stage is tight: allocators lose some to fragments."""
UTILISATION = 0.35
"""Share of a GPU's peak arithmetic that training is assumed to reach; MosaicML, Megatron-LM and
PaLM report 0.3 to 0.5 for whole steps of large models."""


@dataclass(frozen=True)
class Target:
    """A device to plan for.

    Attributes:
        name: Name for people.
        kind: `cuda` or `cpu`.
        memory: Bytes that the device has.
        bfloat16: Whether it computes in bfloat16 itself.
        flops: Peak dense operations per second in 16 bits, from the data sheet; None: unknown.
        bandwidth: Bytes per second of its memory, from the data sheet; None: unknown.
    """

    name: str
    kind: Literal["cuda", "cpu"]
    memory: int
    bfloat16: bool = True
    flops: float | None = None
    bandwidth: float | None = None

    @property
    def usable(self) -> int:
        """Bytes left for tensors beside context and libraries."""
        return self.memory - (CUDA_CONTEXT if self.kind == "cuda" else LIBRARIES)

    def dtype(self, section: ModelSection) -> torch.dtype:
        """Return the dtype of weights and passes, as `effective_dtype` does on the device."""
        import torch

        if section.dtype != "auto":
            named: torch.dtype = getattr(torch, section.dtype)
            return named
        if self.kind == "cpu":
            return torch.float32
        return torch.bfloat16 if self.bfloat16 else torch.float16

    def quantization(self, section: ModelSection) -> str:
        """Return `none`, `4bit` or `8bit`, as `effective_quantization` does on the device."""
        if section.quantization == "auto":
            return "4bit" if self.kind == "cuda" else "none"
        return section.quantization


def _gpu(name: str, gib: float, tflops: float, gigabytes: float, *, bf16: bool = True) -> Target:
    return Target(name, "cuda", int(gib * GIB), bf16, tflops * 1e12, gigabytes * 1e9)


# Memory as nvidia-smi shows it; operations (dense, 16 bits, sums in fp32) and bandwidth from NVIDIA's data sheets.
GPUS = {
    "T4": _gpu("T4", 15.0, 65, 300, bf16=False),
    "L4": _gpu("L4", 22.5, 121, 300),
    "A10": _gpu("A10", 22.5, 125, 600),
    "RTX4090": _gpu("RTX4090", 24.0, 165, 1008),
    "A100-80": _gpu("A100-80", 80.0, 312, 2039),
    "H100": _gpu("H100", 80.0, 989, 3350),
}
"""GPUs that `--gpu` names."""


def target_named(name: str | None) -> Target:
    """Return a GPU of the table, or this machine.

    Args:
        name: Name in `GPUS`, in any case; None: the GPU of this machine if it has one, else its CPU.

    Raises:
        UsageError: There is no such name.
    """
    if name is None:
        return this_machine()
    for known_name, target in GPUS.items():
        if known_name.lower() == name.lower():
            return target
    raise UsageError(
        f"unknown GPU {name}", "--gpu", f"Name one of {', '.join(GPUS)}, or leave --gpu out."
    )


def this_machine() -> Target:
    """Return the GPU of this process, else the CPU with the memory that its limits leave."""
    import torch

    from rlhfctl.models.device import device

    if device().type == "cuda":
        found_device = torch.cuda.get_device_properties(device())
        bf16 = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return Target(found_device.name, "cuda", int(found_device.total_memory), bf16)
    return Target("CPU", "cpu", _machine_memory(), bfloat16=False)


def _machine_memory() -> int:
    """Return the machine's memory, or the limit of its control group where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        file = Path(path)
        if file.is_file() and (text := file.read_text(encoding="utf-8").strip()).isdigit():
            total = min(total, int(text))
    return total
