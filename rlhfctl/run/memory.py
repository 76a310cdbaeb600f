"""How much memory a stage has needed so far."""

from __future__ import annotations

import resource
import sys


def peak_memory_bytes() -> float:
    """Return the peak of this process: allocated on its CUDA GPU where it uses one, else resident."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return float(peak * (1 if sys.platform == "darwin" else 1024))
