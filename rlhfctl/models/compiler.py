"""The compiler and headers with which torch builds kernels of its own."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from rlhfctl.errors import EnvironmentFault

_VARIABLES = ("CXX", "CC")
_PROGRAMS = ("g++", "clang++", "c++", "gcc", "clang", "cc")
_HINT = "Install them (on Debian and Ubuntu: g++ and python3-dev), or use the default."


def require_compiler(where: str) -> str:
    """Return the path of the compiler that `torch.compile` calls, on CPUs and by Triton on GPUs.

    Args:
        where: Key of the recipe that asks for compiled code.

    Raises:
        EnvironmentFault: There is none, or Python's headers are missing.
    """
    names = [os.environ[name] for name in _VARIABLES if os.environ.get(name)] or _PROGRAMS
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise EnvironmentFault(
            f"torch compiles code of its own for it, and there is no C++ compiler: {', '.join(names)}",
            where,
            _HINT,
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        raise EnvironmentFault(
            f"torch compiles code of its own for it, and Python's headers are missing: {header}",
            where,
            _HINT,
        )
    return path
