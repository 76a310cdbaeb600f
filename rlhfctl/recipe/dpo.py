"""The `dpo` section: direct preference optimisation, an alternative to reward model and PPO."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhfctl.recipe.base import Count, Positive  # noqa: TC001 (pydantic reads them)
from rlhfctl.recipe.training import TrainingSection


class DPOSection(TrainingSection):
    """Direct preference optimisation on comparisons with TRL's DPOTrainer."""

    learning_rate: Positive = Field(1e-5, description="Peak learning rate.")
    per_device_train_batch_size: Count = Field(
        8, description="Pairs per process in one training forward pass."
    )
    gradient_accumulation_steps: Count = Field(8, description="Forward passes per optimizer step.")
    beta: Positive = Field(
        0.1,
        description="Coefficient of the implicit KL penalty: larger values stay closer to SFT "
        "(`loss_type: ipo`: the paper's tau).",
    )
    loss_type: Literal["sigmoid", "hinge", "ipo"] = Field(
        "sigmoid",
        description="Loss on the difference of the two log-ratios to SFT: `sigmoid` (Rafailov et "
        "al. 2023), `hinge` (SLiC, Zhao et al. 2023) or `ipo` (Azar et al. 2023, per token).",
    )
    sft: str | None = Field(
        None, description="SFT checkpoint folder to start from; null uses the run's own."
    )
