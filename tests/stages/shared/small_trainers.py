"""The trainers of SFT and of the reward model on twelve rows of the embedded world's ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets import Dataset
from peft import get_peft_model
from transformers import set_seed
from trl import RewardConfig, SFTConfig

from rlhfctl.models.adapters import new_config
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.scorer import load_scorer
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.reward_model.labels import LabelTrainer
from rlhfctl.stages.sft import stage as sft_stage
from rlhfctl.stages.sft.packing import packing_arguments
from rlhfctl.stages.shared.hf_training import make_ready, training_arguments
from tests.present import present

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from rlhfctl.run.monitor import Monitor

ROWS = [([300 + at], [310 + at, 311, 1]) for at in range(12)]
CHANGES = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "warmup_ratio": 0.0,
    "lr_scheduler_type": "constant",
    "logging_steps": 100,
    "save_steps": 1,
}


def trainer_of(
    stage: str,
    folder: Path,
    margins: Sequence[float] | None = None,
    *,
    lora: bool = False,
    monitor: Monitor | None = None,
    **changes: Any,
) -> Any:
    """A trainer of six optimizer steps of two rows, as its stage makes it.

    With `eval_steps` the first four rows are the held-out ones too.
    """
    set_seed(0)  # of the score head
    recipe, tokenizer = Recipe(), load_tokenizer(ModelSection())
    section: Any = recipe.sft if stage == "sft" else recipe.reward_model
    section = section.model_copy(update=CHANGES | changes)
    arguments = training_arguments(section, recipe, folder)
    if stage == "sft":
        rows = [{"input_ids": p + r, "completion_mask": [0] + [1] * len(r)} for p, r in ROWS]
        trainer = sft_stage._Trainer(
            model=_adapted(load_causal_lm(ModelSection()), "CAUSAL_LM", lora=lora),
            args=SFTConfig(**arguments | packing_arguments(section), completion_only_loss=True),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows[:4]),
            processing_class=tokenizer,
        )
    else:
        columns = {
            "chosen_ids": [p + r for p, r in ROWS],
            "rejected_ids": [[*p, 320, *r] for p, r in ROWS],
        }
        pairs = Dataset.from_dict(columns | ({"margin": margins} if margins else {}))
        model = load_scorer(ModelSection(), tokenizer.pad_token_id)
        trainer = LabelTrainer(
            model=_adapted(model, "SEQ_CLS", lora=lora),
            args=RewardConfig(**arguments),
            train_dataset=pairs,
            eval_dataset=pairs.select(range(4)),
            processing_class=tokenizer,
        )
    make_ready(trainer, stage, monitor or NullMonitor(), section, shard=False)
    return trainer


def _adapted(model: Any, task_type: str, *, lora: bool) -> Any:
    if not lora:
        return model
    head = "score" if task_type == "SEQ_CLS" else None
    return get_peft_model(model, new_config(present(Recipe().lora), task_type, head))


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
