"""Measured memory and speed of real steps at the longest length."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rlhfctl.errors import EnvironmentFault
from rlhfctl.json_text import parse_json
from rlhfctl.plan.probe_process import STEPS
from rlhfctl.run.directory import RECIPE_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.schema import Recipe

PROBED = ("sft", "rm", "ppo", "dpo")
"""Stages with training steps, in the order in which they need one another's results."""
_SHOWN_LINES = 3
_RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Lets glibc return freed tensors to the system at once, so that a CPU's resident memory is that of
live tensors; by default it keeps blocks of up to 32 MiB, and how many depends on their order."""


@dataclass(frozen=True)
class Measured:
    """A stage's real steps.

    Attributes:
        peak: Peak bytes beside the libraries; on a CPU, resident ones.
        seconds: Time of the steps, with loading.
        tokens: Tokens trained on.
    """

    peak: int
    seconds: float
    tokens: int


def measure(recipe: Recipe, stages: Sequence[str] = PROBED) -> dict[str, Measured]:
    """Run two optimizer steps of every stage at the greatest length, and measure them.

    Args:
        recipe: Recipe; the base's real weights are loaded.
        stages: Names of the stages; those before the last one run too, since it needs them.

    Raises:
        EnvironmentFault: A stage failed, for instance because memory ran out.
    """
    needed = PROBED[: max(PROBED.index(name) for name in stages) + 1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = shortened(recipe).model_dump(mode="json")
        (folder / RECIPE_FILE).write_text(yaml.safe_dump(values), encoding="utf-8")
        results = {stage: _run(stage, folder) for stage in needed}
    return {stage: result for stage, result in results.items() if stage in stages}


def _run(stage: str, folder: Path) -> Measured:
    command = [sys.executable, "-m", "rlhfctl.plan.probe_process", stage, str(folder)]
    environment = _RETURNED | os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()[-_SHOWN_LINES:]
        raise EnvironmentFault(
            f"the probe of {stage} ended with status {ended.returncode}: {' / '.join(lines)}",
            "--probe",
            "Without --probe the memory is estimated only; what is planned may not fit.",
        )
    result = parse_json((folder / f"{stage}.json").read_text(encoding="utf-8"))
    return Measured(
        peak=int(result["peak_bytes"] - result["bare_bytes"]),
        seconds=float(result["seconds"]),
        tokens=int(result["tokens"]),
    )


def shortened(recipe: Recipe) -> Recipe:
    """Return a recipe of two optimizer steps per stage, with the same passes."""
    supervised = {"num_train_epochs": 1.0, "save_minutes": None, "save_steps": None}
    sft, rm, dpo = (
        section.model_copy(
            update=supervised
            # Gradients of an earlier pass are there from the second on.
            | {"gradient_accumulation_steps": min(2, section.gradient_accumulation_steps)}
        )
        for section in (recipe.sft, recipe.reward_model, recipe.dpo)
    )
    ppo = recipe.ppo.model_copy(
        update={
            "episodes": recipe.ppo.rollout_batch_size,
            "epochs": STEPS,
            "critic_warmup_rollouts": 0,
            "kl_early_stop": None,
            "kl_stop": None,
            "max_ratio": None,
            "ema_decay": None,
            "ptx_coefficient": 0.0,
            "samples_per_run": 0,
            "save_minutes": None,
            "save_rollouts": None,
            "eval_rollouts": None,
            "early_stop": "never",
            "on_alarm": "warn",
            "load_best_model_at_end": False,
        }
    )
    return recipe.model_copy(update={"sft": sft, "reward_model": rm, "ppo": ppo, "dpo": dpo})
