"""Loading, quantisation and adaptation of models, and the four roles of PPO over one base."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhfctl.models.roles import Roles, load_roles

__all__ = ["Roles", "load_roles"]


def __getattr__(name: str) -> object:
    # On first use: the package's light modules must not import torch on the way to --help.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rlhfctl.models import roles

    return getattr(roles, name)
