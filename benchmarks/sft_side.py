"""One side of `benchmarks.sft_vs_trl`, in a process of its own.

`python -m benchmarks.sft_side SIDE BASE EPOCHS THREADS RESULT.json`, SIDE being rlhfctl or trl.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer

from benchmarks.meter import Meter
from benchmarks.output import ROOT
from rlhfctl.data.sources import load_demonstrations
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.view import view
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stage_table import SFT
from rlhfctl.stages.sft import stage

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import Recipe

RECIPE = ROOT / "recipes" / "smollm2-135m.yaml"


class Measured:
    """Meters every `Trainer.train` of the process, and counts the tokens of its steps.

    Attributes:
        rows: Rows of the training passes.
        tokens: Tokens of the training passes, without padding.
        trained: Those of them that the loss counts.
        padded: Tokens of the training passes, with padding.
    """

    def __init__(self, meter: Meter) -> None:
        """Wrap both methods of the class, which the sides inherit from."""
        self.rows = self.tokens = self.trained = self.padded = 0
        train, training_step = Trainer.train, Trainer.training_step

        def metered(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            meter.mark()
            result = train(trainer, *args, **kwargs)
            meter.mark()
            return result

        def counted(trainer: Any, model: Any, inputs: Any, *args: Any) -> Any:
            self.rows += len(inputs["labels"])
            self.tokens += int(inputs["attention_mask"].sum())
            self.padded += inputs["attention_mask"].numel()
            self.trained += int((inputs["labels"][:, 1:] != -100).sum())
            return training_step(trainer, model, inputs, *args)

        Trainer.train, Trainer.training_step = metered, counted


def rlhfctl_side(recipe: Recipe, folder: Path) -> None:
    """Run rlhfctl's stage, with its evaluations, checks and saving."""
    stage.run(view(recipe, SFT), {}, folder, NullMonitor())


def trl_side(recipe: Recipe, folder: Path) -> None:
    """Run TRL's trainer on the same rows; TRL renders and tokenizes them itself."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    section, lora = recipe.sft, recipe.lora
    assert lora is not None
    arguments = SFTConfig(
        output_dir=str(folder),
        learning_rate=section.learning_rate,
        num_train_epochs=float(section.num_train_epochs),
        per_device_train_batch_size=section.per_device_train_batch_size,
        gradient_accumulation_steps=section.gradient_accumulation_steps,
        lr_scheduler_type=section.lr_scheduler_type,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        gradient_checkpointing=section.gradient_checkpointing,
        optim=section.optim,
        max_length=section.max_length,
        model_init_kwargs={"dtype": "float32"},
        seed=recipe.seed,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    adapter = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    rows = load_demonstrations(recipe, NullMonitor()).train
    trainer = SFTTrainer(
        recipe.model.name_or_path, arguments, train_dataset=rows, peft_config=adapter
    )
    trainer.train()


SIDES = {"rlhfctl": rlhfctl_side, "trl": trl_side}


def main() -> None:
    """Train and write what was measured."""
    side, base, epochs, threads, path = sys.argv[1:]
    torch.set_num_threads(int(threads))
    settings = [f"model.name_or_path={base}", f"sft.num_train_epochs={epochs}"]
    recipe = load_recipe(RECIPE, settings).recipe
    meter = Meter(0)
    measured = Measured(meter)
    with tempfile.TemporaryDirectory() as folder:
        SIDES[side](recipe, Path(folder))
    Path(path).write_text(json.dumps(meter.metrics() | vars(measured)), encoding="utf-8")


if __name__ == "__main__":
    main()
