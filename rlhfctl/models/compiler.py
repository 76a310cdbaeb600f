"""The compiler, headers and folder with which torch builds kernels of its own."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from rlhfctl.errors import EnvironmentFault

_VARIABLES = ("CXX", "CC")
_PROGRAMS = ("g++", "clang++", "c++", "gcc", "clang", "cc")
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_HINT = "Install them (on Debian and Ubuntu: g++ and python3-dev), or use the default."


def require_compiler(where: str) -> str:
    """Return the path of the compiler that `torch.compile` calls, on CPUs and by Triton on GPUs.

    Args:
        where: Key of the recipe that asks for compiled code.

    Raises:
        EnvironmentFault: There is none, Python's headers are missing, or torch's folder for compiled
            code forbids to run it.
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
    _require_executable(where)
    return path


def _require_executable(where: str) -> None:
    """Check the folder that torch writes libraries to and loads them from."""
    cache = Path(os.environ.get(_CACHE) or tempfile.gettempdir()).absolute()
    folder = next(parent for parent in (cache, *cache.parents) if parent.is_dir())
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise EnvironmentFault(
            f"torch runs code from {cache}, which is mounted noexec",
            where,
            f"Set {_CACHE} to a folder elsewhere, mount it with exec (docker run --tmpfs /tmp:exec), or use "
            "the default.",
        )
