"""Checks of the program that samples PPO's rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault
from rlhfctl.preflight.finding import Finding, environment_error
from rlhfctl.run.vllm_environment import KEY, adapter_folder, find_python, vllm_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import Recipe


def check_engine(recipe: Recipe) -> Iterator[Finding]:
    """Check what vLLM needs of this machine; nothing is started, and no server is asked."""
    if recipe.ppo.engine != "vllm":
        return
    section = recipe.ppo.vllm
    for address in section.server_base_url:
        what = f"{address}: asked when PPO starts"
        yield Finding("not checked", what, "ppo.vllm.server_base_url")
    try:
        folder = adapter_folder(section.adapter_folder)
        if folder is not None:
            yield Finding("ok", f"{folder}: a folder", "ppo.vllm.adapter_folder")
        if not section.server_base_url:
            python = find_python(section.python)
            yield Finding("ok", f"vLLM {vllm_version(python)} in {python}", KEY)
    except EnvironmentFault as error:
        yield environment_error(error)
