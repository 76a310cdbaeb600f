"""Check that policy and critic can be trained on, before their state is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.errors import DivergedError
from rlhfctl.maths.finite import first_not_finite

if TYPE_CHECKING:
    from torch import Tensor

    from rlhfctl.ppo.ppo_step import PPOStep
    from rlhfctl.ppo.rollout import Rollout


def require_sound(step: PPOStep, rollout: Rollout) -> None:
    """Refuse weights that are not finite, or that give no finite numbers in a forward pass.

    An update can leave weights that are finite and so large that no pass is. The pass is over as
    many of the rollout's shortest episodes as training passes have.

    Args:
        step: Weights of policy and critic, after an update.
        rollout: Episodes that they were trained on.

    Raises:
        DivergedError: A weight, log-probability or value is NaN or infinite.
    """
    numbers: dict[str, Tensor] = {
        f"weight {index} of the {role}": weight
        for role, weights in step.weights.items()
        for index, weight in enumerate(weights)
    }
    _, part = next(rollout.sequences.in_chunks(step.pass_size.rows))
    numbers["a log-probability of the policy"] = step.roles.log_probs("policy", part).log_probs
    if "critic" in step.weights:
        numbers["a value of the critic"] = step.roles.values(part)
    name = first_not_finite(numbers)
    if name is not None:
        raise DivergedError(
            f"{name} is not a finite number after an update",
            hint="Lower ppo.learning_rate and ppo.value_learning_rate.",
        )
