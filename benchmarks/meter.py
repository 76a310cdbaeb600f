"""Clocks and memory of one process; needs torch alone, so that peers use it too."""

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


def _held() -> int:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return _resident("VmRSS") if STATUS.is_file() else 0


def synchronize() -> None:
    """Wait for the GPU, where there is one, so that a clock tells what was done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Meter:
    """Times rollouts and the phases within them, and takes the peak of memory over them.

    Attributes:
        wall: Seconds of each timed rollout.
        cpu: Processor seconds of this process in each timed rollout, all threads together.
        phases: Seconds by phase, over the timed rollouts.
    """

    def __init__(self, warmup: int) -> None:
        """Take the number of rollouts that are not timed; make it before any model is loaded."""
        self.warmup = warmup
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.phases: defaultdict[str, float] = defaultdict(float)
        self._seen = -1
        self._at = (0.0, 0.0)
        self._before = 0
        self._bare = _held()

    @property
    def timing(self) -> bool:
        """Whether the present rollout is a timed one."""
        return self._seen >= self.warmup

    def mark(self) -> None:
        """Say that training starts, or that a rollout has ended."""
        synchronize()
        now = (time.perf_counter(), time.process_time())
        if self.timing:
            self.wall.append(now[0] - self._at[0])
            self.cpu.append(now[1] - self._at[1])
        elif self._seen < 0:
            self._reset_peak()
        self._seen += 1
        self._at = now

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that adds its calls' seconds to a phase."""

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
        self._before = _held()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif STATUS.is_file():
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")

    def metrics(self) -> dict[str, Any]:
        """Return everything measured; bytes are allocated ones on a GPU, else resident ones.

        ``bare_bytes`` were held when the meter was made, ``start_bytes`` before training: on a GPU
        nothing and the models, on a CPU the libraries beside them.
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
