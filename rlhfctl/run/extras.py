"""Packages that come with an extra of rlhfctl only, and the sentence where one is missing."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Sequence


def require_harness(tasks: Sequence[str]) -> None:
    """Make sure that lm-evaluation-harness is installed where the recipe names tasks of it.

    Raises:
        EnvironmentFault: It is not installed.
    """
    if tasks:
        require_extra("lm_eval", "lm-evaluation-harness (lm-eval)", "tax", "evaluation.tax.tasks")


def require_extra(module: str, package: str, extra: str, key: str) -> None:
    """Make sure that a module is installed, without importing it.

    Args:
        module: What would be imported.
        package: What it is called.
        extra: The extra of rlhfctl that brings it.
        key: The recipe's key that asks for it.

    Raises:
        EnvironmentFault: It is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise EnvironmentFault(
            f"{package} is not installed",
            key,
            f"pip install 'rlhfctl[{extra}]', or leave {key} empty.",
        )
