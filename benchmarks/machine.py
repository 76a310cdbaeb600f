"""Description of the machine, and its matrix multiplication and memory speed."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.meter import synchronize
from rlhfctl.models.linear import prefers_onednn, use_fast_cpu_layers

if TYPE_CHECKING:
    from collections.abc import Callable


def device() -> torch.device:
    """Return the CUDA GPU if available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(threads: int) -> dict[str, Any]:
    """Return the machine's hardware and the package versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "gpu": gpu,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(pages / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {
            name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")
        },
        "prefers_onednn": prefers_onednn(),
    }


def title(machine: dict[str, Any]) -> str:
    """Return a one-line description of the machine."""
    hardware = (
        machine["gpu"] or f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores"
    )
    return f"{hardware}; torch {machine['packages']['torch']}"


def best_seconds(function: Callable[[], Any], repeats: int = 7, least: float = 0.02) -> float:
    """Return the seconds per call in the fastest of several periods of `least` seconds."""
    function()
    best = float("inf")
    for _ in range(repeats):
        synchronize()
        started, calls = time.perf_counter(), 0
        while time.perf_counter() - started < least:
            function()
            calls += 1
        synchronize()
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def matmul_flops(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """Return floating-point operations per second of [rows, inner] x [inner, columns].

    Uses rlhfctl's linear layers, which on some CPUs use another kernel than torch.
    """
    states = torch.randn(rows, inner, device=device(), dtype=dtype)
    layer = torch.nn.Linear(inner, columns, bias=False, device=device(), dtype=dtype)
    use_fast_cpu_layers(layer)
    with torch.no_grad():
        seconds = best_seconds(lambda: layer(states))
    return 2.0 * rows * inner * columns / seconds


def peak_flops(dtype: torch.dtype) -> float:
    """Return operations per second of a large square matrix multiplication."""
    size = 8192 if torch.cuda.is_available() else 1024
    return matmul_flops(size, size, size, dtype)


def read_bandwidth() -> float:
    """Return bytes per second read by a sum over a tensor larger than all caches."""
    data = torch.ones(2**28 if torch.cuda.is_available() else 2**26, device=device())
    return data.numel() * data.element_size() / best_seconds(data.sum)
