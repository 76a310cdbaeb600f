"""TRL 1.12.0's side: `trl.experimental.ppo.PPOTrainer` on the same workload.

`python -m benchmarks.trl_peer.run WORK.json CHECKPOINTS RESULT.json`

Differences from rlhfctl, and their treatment here:

- It steps only every `gradient_accumulation_steps` micro-batches, whatever `num_mini_batches` says
  (trl#5645). With accumulation 1 and a per-device batch as large as the rollout, each minibatch
  is one pass and one step, as in rlhfctl.
- It generates sample completions during training (`num_sample_generations`, 10 by default): off.
- Gradient checkpointing and bf16 are on by default: off here, unless the workload sets them.
- It takes log-probabilities from the sampler's logits, so it makes one scoring pass less than rlhfctl,
  which recomputes them with the training forward pass. It does not clip gradients. It runs LM heads
  on prompts too, and stores all hidden states of every pass.
- `peft_config` reaches the policy alone: with LoRA, the value model still trains all its weights,
  and must be a separate model, as must the reward model. The reference is the base model.
- Responses have no stop token; a sampled pad token (probability 1 / vocabulary size) is
  masked, which changes no tensor shape.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.meter import Meter
from benchmarks.work import Work

RANK, ALPHA = 16, 32


class _Marks(TrainerCallback):  # type: ignore[misc]
    """Callback that marks the start and the end of each rollout on a meter."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.meter.mark()


def _models(work: Work, folder: Path) -> dict[str, Any]:
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        BitsAndBytesConfig,
    )

    dtype = getattr(torch, work.dtype)
    place = {"device_map": {"": 0}} if torch.cuda.is_available() else {}
    frozen: dict[str, Any] = {"dtype": dtype, **place}
    if work.quantization == "4bit":
        frozen["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "score"],
        )
    scorer = AutoModelForSequenceClassification
    return {
        "model": AutoModelForCausalLM.from_pretrained(folder / "base", **frozen),
        "ref_model": None
        if work.lora
        else AutoModelForCausalLM.from_pretrained(folder / "base", **frozen),
        "reward_model": scorer.from_pretrained(folder / "scorer", num_labels=1, **frozen),
        "value_model": scorer.from_pretrained(
            folder / "scorer", num_labels=1, dtype=dtype, **place
        ),
    }


def _arguments(work: Work, output: str) -> dict[str, Any]:
    return {
        "output_dir": output,
        "learning_rate": 3e-6,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": work.batch,
        "gradient_accumulation_steps": 1,
        "num_mini_batches": work.minibatches,
        "num_ppo_epochs": work.epochs,
        "total_episodes": (work.warmup + work.rollouts) * work.batch,
        "local_rollout_forward_batch_size": work.batch,
        "num_sample_generations": 0,
        "response_length": work.response_length,
        "temperature": 1.0,
        "kl_coef": 0.05,
        "gradient_checkpointing": work.gradient_checkpointing,
        "bf16": work.dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "no",
        "disable_tqdm": True,
        "seed": work.seed,
    }


def run(work: Work, folder: Path) -> dict[str, Any]:
    """Run the workload and return its metrics, with the seconds of generation."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # type: ignore[import-not-found]

    torch.set_num_threads(work.threads)
    meter = Meter(work.warmup)
    ppo_trainer.batch_generation = meter.timed("generation", ppo_trainer.batch_generation)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    data = Dataset.from_dict({"input_ids": prompts})
    adapter = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with tempfile.TemporaryDirectory() as output:
        trainer = PPOTrainer(
            args=PPOConfig(**_arguments(work, output)),
            processing_class=tokenizer,
            train_dataset=data,
            eval_dataset=data.select(range(work.batch)),
            callbacks=[_Marks(meter)],
            peft_config=adapter if work.lora else None,
            **_models(work, folder),
        )
        steps = 0
        step = trainer.optimizer.step

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            return step(*args, **kwargs)

        trainer.optimizer.step = counted
        trainer.train()
    expected_steps = (work.warmup + work.rollouts) * work.epochs * work.minibatches
    if steps != expected_steps:
        raise RuntimeError(f"TRL made {steps} optimiser steps, not {expected_steps}")
    return meter.metrics()


if __name__ == "__main__":
    result = run(Work.read(Path(sys.argv[1])), Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(result), encoding="utf-8")
