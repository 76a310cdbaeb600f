"""Checks for packages of rlhfctl's optional extras."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence


def require_harness(tasks: Sequence[str]) -> None:
    """Check that lm-evaluation-harness is installed if the recipe lists tasks.

    Raises:
        EnvironmentFault: The package is not installed.
    """
    if tasks:
        require_extra("lm_eval", "lm-evaluation-harness (lm-eval)", "tax", "evaluation.tax.tasks")


def require_extra(module: str, package: str, extra: str, key: str) -> None:
    """Check that a module is installed, without importing it.

    Args:
        module: Import name.
        package: Display name.
        extra: Extra of rlhfctl that installs it.
        key: Recipe key that requires it.

    Raises:
        EnvironmentFault: The module is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise EnvironmentFault(
            f"{package} is not installed",
            key,
            f"pip install 'rlhfctl[{extra}]', or leave {key} empty.",
        )
