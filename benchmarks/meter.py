"""Time and memory measurement of a process; depends only on torch, so that TRL's side uses it too."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

STATUS = Path("/proc/self/status")


def _resident(name: str) -> int:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name))) * 1024


def _memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return _resident("VmRSS") if STATUS.is_file() else 0


def synchronize() -> None:
    """Wait for the GPU, if available, before reading a clock."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Meter:
    """Timer of rollouts and their phases, with peak memory.

    Attributes:
        wall: Seconds per timed rollout.
        cpu: CPU seconds of this process per timed rollout, summed over threads.
        phases: Total seconds by phase over the timed rollouts.
    """

    def __init__(self, warmup: int) -> None:
        """Set the number of warm-up rollouts; call before any model is loaded."""
        self.warmup = warmup
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.phases: defaultdict[str, float] = defaultdict(float)
        self._seen = -1
        self._last = (0.0, 0.0)
        self._before = 0
        self._bare = _memory()

    @property
    def timing(self) -> bool:
        """True if the current rollout is timed."""
        return self._seen >= self.warmup

    def mark(self) -> None:
        """Mark the start of training or the end of a rollout."""
        synchronize()
        now = (time.perf_counter(), time.process_time())
        if self.timing:
            self.wall.append(now[0] - self._last[0])
            self.cpu.append(now[1] - self._last[1])
        elif self._seen < 0:
            self._reset_peak()
        self._seen += 1
        self._last = now

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function to add the seconds of its calls to a phase."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            started = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize()
            if self.timing:
                self.phases[phase] += time.perf_counter() - started
            return result

        return call

    def _reset_peak(self) -> None:
        self._before = _memory()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif STATUS.is_file():
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")

    def metrics(self) -> dict[str, Any]:
        """Return all measurements; bytes are allocated memory on a GPU, else resident memory.

        ``bare_bytes`` is the memory when the meter was created, ``start_bytes`` before training.
        On a GPU these are zero and the models; on a CPU both also include the libraries.
        """
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _resident("VmHWM") if STATUS.is_file() else 0
        return {
            "seconds": self.wall,
            "cpu_seconds": self.cpu,
            "phases": dict(self.phases),
            "peak_bytes": peak,
            "start_bytes": self._before,
            "bare_bytes": self._bare,
            "load": os.getloadavg()[0],
            "torch": torch.__version__,
        }
