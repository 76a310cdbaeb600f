"""Offline mode: no connection to another machine, and a refusal of recipes that need one."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlhfctl.errors import RecipeError
from rlhfctl.stage_table import EVALUATION, PPO

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stage_table import Stage

OFFLINE = "RLHFCTL_OFFLINE"
_LIBRARIES = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
}


def go_offline() -> None:
    """Set this process, and those that it starts, offline; call before importing any library."""
    os.environ.update(_LIBRARIES | {OFFLINE: "1"})


def is_offline() -> bool:
    """Return whether the user asked for no connection to another machine."""
    return os.environ.get(OFFLINE) == "1"


def require_no_connection(recipe: Recipe, stages: Collection[Stage]) -> None:
    """Refuse servers on other machines that the stages would ask, when offline.

    Raises:
        RecipeError: The recipe names one; the message names each.
    """
    if not is_offline():
        return
    remote = [
        (key, address)
        for key, address in _addresses(recipe, stages)
        if not _on_this_machine(address)
    ]
    if remote:
        raise RecipeError(
            "--offline allows no connection, and the recipe names servers on other machines: "
            + ", ".join(f"{key}: {address}" for key, address in remote),
            remote[0][0],
            "Leave out --offline, or name a server on this machine.",
        )


def _addresses(recipe: Recipe, stages: Collection[Stage]) -> Iterator[tuple[str, str]]:
    """Yield recipe key and address of every server that the stages ask."""
    if PPO in stages or EVALUATION in stages:
        for place, source in enumerate(recipe.ppo.reward_sources):
            if source.kind == "server":
                yield f"ppo.reward_sources[{place}].source", source.source
    if PPO in stages and recipe.ppo.engine == "vllm":
        for place, address in enumerate(recipe.ppo.vllm.server_base_url):
            yield f"ppo.vllm.server_base_url[{place}]", address
    endpoint = recipe.evaluation.judge_endpoint
    if endpoint is not None and EVALUATION in stages:
        yield "evaluation.judge_endpoint.url", endpoint.url


def _on_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
