"""Proximal policy optimisation for language models, usable as a library.

`PPOTrainer.train` is the algorithm. It drives any object that implements `Roles`, such as the toy
policy in `examples/toy_policy.py`. Names load on first use: `import rlhfctl.ppo` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhfctl.ppo.hooks import HeldOutEvaluation, HeldOutEvaluator
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.ppo.rewards import Rewards, RewardSource
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.settings import PPOSettings, Roles, TrainedRole
    from rlhfctl.ppo.trainer import PPOTrainer

__all__ = [
    "HeldOutEvaluation",
    "HeldOutEvaluator",
    "PPOSettings",
    "PPOTrainer",
    "Processes",
    "RewardSource",
    "Rewards",
    "Roles",
    "Rollout",
    "TrainedRole",
]

_MODULES = {
    "HeldOutEvaluation": "hooks",
    "HeldOutEvaluator": "hooks",
    "PPOSettings": "settings",
    "PPOTrainer": "trainer",
    "Processes": "processes",
    "RewardSource": "rewards",
    "Rewards": "rewards",
    "Roles": "settings",
    "Rollout": "rollout",
    "TrainedRole": "settings",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
