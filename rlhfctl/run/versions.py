"""The versions that a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import rlhfctl

_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "bitsandbytes",
    "numpy",
)


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, rlhfctl and the libraries; reads package data only."""
    versions = {"python": platform.python_version(), "rlhfctl": rlhfctl.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
