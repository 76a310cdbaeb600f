"""The roles of a tiny run, loaded once in a process and copied for each test."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING

import torch

from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

if TYPE_CHECKING:
    from rlhfctl.models.role_models import CriticInit
    from rlhfctl.models.roles import Roles
    from tests.conftest import TinyRun


def loaded(run: TinyRun) -> Roles:
    """Return roles with a critic that start from the run's SFT and reward model.

    A copy shares no tensor with another; it takes a sixth of the time of loading.
    """
    open_stage_context(run.recipe)  # as before each loading: denormal numbers are off
    return deepcopy(_first(run))


def loaded_with_head(run: TinyRun, *, gradient_checkpointing: bool = False) -> Roles:
    """Return roles with a value head on the policy that is not 0, so its loss reaches the policy."""
    open_stage_context(run.recipe)
    roles = deepcopy(_first(run, "head", gradient_checkpointing=gradient_checkpointing))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in roles.models.value_head.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return roles


@cache
def _first(
    run: TinyRun, critic: CriticInit = "reward_model", *, gradient_checkpointing: bool = False
) -> Roles:
    return open_roles(
        open_stage_context(run.recipe),
        {"sft": run.stage("sft"), "rm": run.stage("rm")},
        critic=critic,
        gradient_checkpointing=gradient_checkpointing,
    )
