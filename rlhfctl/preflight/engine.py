"""Checks of the program that samples PPO's rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault
from rlhfctl.preflight.finding import Finding
from rlhfctl.run.vllm_environment import KEY, find_python, vllm_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import Recipe


def check_engine(recipe: Recipe) -> Iterator[Finding]:
    """Check the environment of a vLLM server that the run would start; nothing is started."""
    if recipe.ppo.engine != "vllm":
        return
    section = recipe.ppo.vllm
    for address in section.server_base_url:
        what = f"{address}: asked when PPO starts"
        yield Finding("not checked", what, "ppo.vllm.server_base_url")
    if section.server_base_url:
        return
    try:
        python = find_python(section.python)
        yield Finding("ok", f"vLLM {vllm_version(python)} in {python}", KEY)
    except EnvironmentFault as error:
        hint = error.hint[:1].lower() + error.hint[1:].rstrip(".")
        yield Finding("error", error.what, error.where, hint, "environment")
