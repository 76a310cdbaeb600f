"""Installed versions of Python, rlhfctl and the libraries."""

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
    """Return the installed versions from package metadata, without importing the libraries."""
    versions = {"python": platform.python_version(), "rlhfctl": rlhfctl.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
