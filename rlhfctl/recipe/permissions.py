"""Permission to run code that is no part of rlhfctl, given per command and never by a recipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rlhfctl.errors import UnsafeError

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection

ALLOW_CODE = "RLHFCTL_ALLOW_CODE"
ALLOW_REMOTE_CODE = "RLHFCTL_ALLOW_REMOTE_CODE"


def permit(*, code: bool = False, remote_code: bool = False) -> None:
    """Give permission in this process and in those that it starts.

    Args:
        code: Allow the functions and task files that a recipe names.
        remote_code: Allow code from a model's repository.
    """
    for granted, variable in ((code, ALLOW_CODE), (remote_code, ALLOW_REMOTE_CODE)):
        if granted:
            os.environ[variable] = "1"


def allows_code() -> bool:
    """Return whether the functions and task files that a recipe names may be imported."""
    return os.environ.get(ALLOW_CODE) == "1"


def allows_remote_code() -> bool:
    """Return whether code from a model's repository may run."""
    return os.environ.get(ALLOW_REMOTE_CODE) == "1"


def require_code(kind: str, name: str, key: str) -> None:
    """Refuse code that a recipe names, unless it is rlhfctl's own or the user allowed it.

    Args:
        kind: Noun phrase, such as ``function``.
        name: Its value in the recipe.
        key: Recipe key.

    Raises:
        UnsafeError: Neither.
    """
    if not allows_code() and not is_own(name):
        raise UnsafeError(
            f"the recipe names a {kind} to run on this machine, {name}",
            key,
            f"After reviewing it, add --allow-code, or set {ALLOW_CODE}=1.",
        )


def is_own(name: str) -> bool:
    """Return whether a `module:function` is in rlhfctl's package."""
    module, colon, _ = name.partition(":")
    return bool(colon) and module.split(".")[0] == "rlhfctl"


def require_remote_code(model: ModelSection) -> None:
    """Refuse a model that runs code of a repository, unless the user allowed it.

    Raises:
        UnsafeError: It does, and the user did not.
    """
    key = model.remote_code()
    if key is not None and not allows_remote_code():
        source = model.name_or_path if key == "trust_remote_code" else model.attn_implementation
        raise UnsafeError(
            f"code of {source} would run on this machine",
            f"model.{key}",
            f"After reviewing it, add --allow-remote-code, or set {ALLOW_REMOTE_CODE}=1.",
        )
