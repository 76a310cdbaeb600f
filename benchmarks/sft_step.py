"""A few SFT steps as in rlhfctl's SFT stage, for their peak memory.

`python -m benchmarks.sft_step WORK.json CHECKPOINTS RESULT.json`
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.meter import Meter
from benchmarks.rlhfctl_ppo import recipe_for
from benchmarks.work import Work
from rlhfctl.models import adapters
from rlhfctl.models.base import load_causal_lm
from rlhfctl.stages.shared.hf_training import training_arguments

STEPS = 3


class _Marks(TrainerCallback):  # type: ignore[misc]
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.meter.mark()


def run(work: Work, folder: Path) -> dict[str, Any]:
    """Train on rows as long as PPO episodes, with a PPO minibatch per step."""
    from transformers import AutoTokenizer

    torch.set_num_threads(work.threads)
    recipe = recipe_for(work, folder)
    meter = Meter(0)
    model = load_causal_lm(recipe.model)
    if recipe.lora is not None:
        model = get_peft_model(model, adapters.new_config(recipe.lora, "CAUSAL_LM"))
    generator = torch.Generator().manual_seed(work.seed)
    rows = torch.randint(
        2, model.config.vocab_size, (STEPS * work.minibatch, work.length), generator=generator
    )
    mask = [[0] * work.prompt_length + [1] * work.response_length] * len(rows)
    section = recipe.sft.model_copy(
        update={
            "per_device_train_batch_size": work.minibatch,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": work.gradient_checkpointing,
        }
    )
    with tempfile.TemporaryDirectory() as output:
        arguments = training_arguments(section, recipe, Path(output))
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**arguments, completion_only_loss=True, packing=False),
            train_dataset=Dataset.from_dict({"input_ids": rows.tolist(), "completion_mask": mask}),
            processing_class=AutoTokenizer.from_pretrained(folder / "base"),
            callbacks=[_Marks(meter)],
        )
        trainer.remove_callback(PrinterCallback)
        adapters.restore_float32(trainer.model)
        trainer.train()
    return meter.metrics()


if __name__ == "__main__":
    result = run(Work.read(Path(sys.argv[1])), Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(result), encoding="utf-8")
