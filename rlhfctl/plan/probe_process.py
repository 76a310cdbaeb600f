"""Two real optimizer steps of one stage at the longest length, for their peak memory and speed.

`python -m rlhfctl.plan.probe_process STAGE FOLDER` reads FOLDER/recipe.yaml, trains by the stage's own
trainer on rows of random tokens, and writes FOLDER/STAGE.json. The stages need one another's results,
so they run in their order, each in a process of its own whose peak is that stage's.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlhfctl.data.formatting import Encoded
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.models.device import effective_quantization
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.roles import load_roles
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.directory import RECIPE_FILE
from rlhfctl.run.memory import peak_memory_bytes
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stage_table import DPO, REWARD_MODEL, SFT
from rlhfctl.stages.dpo.training import new_trainer as new_dpo_trainer
from rlhfctl.stages.dpo.training import start_at_sft
from rlhfctl.stages.ppo.stage import ppo_settings
from rlhfctl.stages.reward_model.training import train
from rlhfctl.stages.sft.stage import new_trainer
from rlhfctl.stages.shared.hf_training import make_ready
from rlhfctl.stages.shared.stage_context import StageContext, open_stage_context, save_trained

if TYPE_CHECKING:
    from datasets import Dataset

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.recipe.training import TrainingSection

_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
"""First line of a mapping in smaps."""
STEPS = 2
"""Optimizer steps: only the second has the optimizer's state beside its activations."""


def probe(stage: str, folder: Path) -> dict[str, float]:
    """Run the steps of a stage; return its memory and speed.

    Returns:
        `bare_bytes` before a model is loaded (0 on a GPU), `peak_bytes` from then on, without the
        file of a base that was quantised, `seconds`, and `tokens` that were trained on.
    """
    recipe = load_recipe(folder / RECIPE_FILE).recipe
    context = open_stage_context(recipe)
    bare = 0.0 if torch.cuda.is_available() else peak_memory_bytes()
    started = time.perf_counter()
    if stage == SFT.name:
        tokens, mapped = _sft(context, folder)
    elif stage == REWARD_MODEL.name:
        tokens, mapped = _reward_model(context, folder)
    elif stage == DPO.name:
        tokens, mapped = _dpo(context, folder)
    else:
        tokens, mapped = _ppo(context, folder)
    return {
        "bare_bytes": bare,
        "peak_bytes": peak_memory_bytes() - (0 if torch.cuda.is_available() else mapped),
        "seconds": time.perf_counter() - started,
        "tokens": tokens,
    }


def _mapped_checkpoint(recipe: Recipe) -> int:
    """Return resident bytes of the mapped file that a quantised base was read from.

    safetensors maps the whole file, and a few tensors that are not quantised keep it mapped. The
    kernel drops such pages when memory is short. Without quantisation they are the weights.
    """
    maps = Path("/proc/self/smaps")
    if effective_quantization(recipe.model) == "none" or not maps.is_file():
        return 0
    total, counts = 0, False
    for line in maps.read_text(encoding="utf-8").splitlines():
        if _MAPPING.match(line):
            counts = line.endswith(".safetensors")
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def _sft(context: StageContext, folder: Path) -> tuple[int, int]:
    """Train; return the tokens, and the mapped bytes while the model is there."""
    from datasets import Dataset

    section = context.recipe.sft
    rows = _rows(context, section.max_length, _count(section))
    mask = [[1] * len(row) for row in rows]
    data = Dataset.from_dict({"input_ids": rows, "completion_mask": mask})
    trainer = new_trainer(context, data, data.select(range(1)), folder)
    make_ready(trainer, "sft", NullMonitor(), section, shard=False)
    trainer.train()
    save_trained(context, trainer.model, folder / "sft", "sft", "CAUSAL_LM")
    return sum(map(len, rows)), _mapped_checkpoint(context.recipe)


def _reward_model(context: StageContext, folder: Path) -> tuple[int, int]:
    section = context.recipe.reward_model
    count = _count(section)
    rows = _rows(context, section.max_length, 2 * count)
    trained = train(
        context, folder / "sft", _encoded(rows[:count], rows[count:]), 0, folder, NullMonitor()
    )
    save_trained(context, trained.model, folder / "rm", "rm", "SEQ_CLS")
    ScoreNormalization(0.0, 1.0, count).save(folder / "rm")
    return sum(map(len, rows)), _mapped_checkpoint(context.recipe)


def _ppo(context: StageContext, folder: Path) -> tuple[int, int]:
    recipe, section = context.recipe, context.recipe.ppo
    rms = [folder / "rm"] if section.uses_rm else []
    roles = load_roles(
        *(recipe, context.tokenizer),
        # No token that can be sampled, so that every response has the greatest length.
        [2**31 - 1],
        folder / "sft",
        rms,
        critic=section.critic_start,
        gradient_checkpointing=section.gradient_checkpointing,
    )
    width = recipe.generation.max_prompt_length
    prompts = _rows(context, width, section.rollout_batch_size)
    trainer = PPOTrainer(roles, prompts, ppo_settings(recipe), NullMonitor())
    trainer.train()
    response = recipe.generation.max_new_tokens
    tokens = sum(len(prompt) + response for prompt in prompts)
    return tokens, _mapped_checkpoint(recipe)


def _dpo(context: StageContext, folder: Path) -> tuple[int, int]:
    from datasets import Dataset

    section = context.recipe.dpo
    count = _count(section)
    rows = _rows(context, section.max_length, 2 * count)
    # Prompts of one token: every other token counts in the loss.
    data = Dataset.from_dict(
        {"chosen_ids": rows[:count], "rejected_ids": rows[count:], "prompt_length": [1] * count}
    )
    trainer = new_dpo_trainer(context, folder / "sft", data, data.select(range(1)), folder)
    make_ready(trainer, "dpo", NullMonitor(), section, shard=False)
    start_at_sft(trainer, folder / "sft")
    trainer.train()
    return sum(map(len, rows)), _mapped_checkpoint(context.recipe)


def _count(section: TrainingSection) -> int:
    return STEPS * section.gradient_accumulation_steps * section.per_device_train_batch_size


def _rows(context: StageContext, length: int, count: int) -> list[list[int]]:
    """Return rows of random tokens: most of the greatest length, every fourth a little shorter."""
    generator = torch.Generator().manual_seed(context.recipe.seed)
    size = len(context.tokenizer)
    ids = torch.randint(2, size, (count, length), generator=generator).tolist()
    return [row[: length - (number % 4 == 3)] for number, row in enumerate(ids)]


def _encoded(chosen: list[list[int]], rejected: list[list[int]]) -> Encoded:
    from datasets import Dataset

    data: Dataset = Dataset.from_dict({"chosen_ids": chosen, "rejected_ids": rejected})
    return Encoded(data, RowCounts("probe"), max(map(len, chosen)))


def main() -> None:
    """Read the command line, run the steps and write their result."""
    stage, folder = sys.argv[1], Path(sys.argv[2])
    result = probe(stage, folder)
    (folder / f"{stage}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
