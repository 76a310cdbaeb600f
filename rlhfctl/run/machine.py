"""Hardware of this process, and the commit of its source."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import rlhfctl

_SECONDS = 5.0


def machine() -> dict[str, str]:
    """Return `hardware`, and `commit` if rlhfctl runs from a git checkout.

    The hardware is the CUDA GPUs if there are any, else the processor.
    """
    commit = _commit(Path(rlhfctl.__file__).resolve().parent.parent)
    return {"hardware": _gpus() or _processor(), **({"commit": commit} if commit else {})}


def _gpus() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _processor() -> str:
    """Return the number of cores and the processor's name."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return f"{os.cpu_count() or 1} cores, {name}"


def _commit(checkout: Path) -> str:
    """Return the abbreviated commit, with `-dirty` if files differ; empty without git."""
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
