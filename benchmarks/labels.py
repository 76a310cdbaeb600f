"""Gold accuracy of reward models by label aggregation method and label noise.

    python -m benchmarks.labels

Three annotators of the embedded panel label each pair. In addition to their disagreement, each label
is flipped with a probability of 0 to 40 %. Each method trains a reward model on the same labels with
the same number of optimiser steps. The model is evaluated on held-out pairs ordered by the gold
reward, which training never uses. One thread; the result is benchmarks/results/labels.json.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.output import CHECKPOINTS, ROOT, show, write
from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.data.sources import gold_comparisons, load_comparisons
from rlhfctl.evaluation.preferences import accuracy
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.reward_model.labels import aggregated
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.reward_model.training import train
from rlhfctl.stages.shared.stage_context import open_stage_context

if TYPE_CHECKING:
    from datasets import Dataset

RECIPE = ROOT / "recipes" / "base.yaml"
LABELS_PER_PAIR = 3
GOLD_PAIRS_DRAWN = 12_000
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4)
_SIDES = ("chosen", "rejected")
METHODS: dict[str, list[str]] = {
    "as given": [],
    "label smoothing 0.1": ["reward_model.label_smoothing=0.1"],
    "majority": ["reward_model.labels=majority"],
    "soft": ["reward_model.labels=soft"],
    "weighted": ["reward_model.labels=weighted"],
    "soft, Dawid-Skene": ["reward_model.labels=soft", "reward_model.aggregation=dawid_skene"],
}


def sft_checkpoint(folder: Path) -> Path:
    """Train SFT unless it is up to date; every reward model starts from it."""
    command = [sys.executable, "-m", "rlhfctl", "sft", str(RECIPE), "--quiet", "--run", "labels"]
    small = ["--set", "data.demonstrations.max_rows=1000"]
    subprocess.run([*command, "--runs-dir", str(folder), *small], check=True, cwd=ROOT)
    return folder / "labels" / "sft"


def flipped(rows: Dataset, noise: float, seed: int) -> Dataset:
    """Return the rows with each label flipped with probability `noise`."""
    rng = random.Random(f"turned {noise} {seed}")
    result = []
    for row in rows:
        if rng.random() < noise:
            row |= {"chosen": row["rejected"], "rejected": row["chosen"]}
        result.append(row)
    return type(rows).from_list(result)


@dataclass(frozen=True)
class Seed:
    """Data and settings shared by all trainings of one seed.

    Attributes:
        number: Seed of the recipe.
        settings: Overrides of the base recipe.
        comparisons: Training comparisons, one row per label.
        gold: Encoded held-out pairs in gold order.
    """

    number: int
    settings: list[str]
    comparisons: Dataset
    gold: Dataset

    @classmethod
    def of(cls, number: int, pairs: int) -> Seed:
        """Draw the data of one seed."""
        settings = [
            f"seed={number}",
            f"data.comparisons.max_rows={pairs * LABELS_PER_PAIR}",
            f"data.comparisons.labels_per_pair={LABELS_PER_PAIR}",
        ]
        recipe = load_recipe(RECIPE, settings).recipe
        gold = encode_comparisons(
            gold_comparisons(recipe, GOLD_PAIRS_DRAWN),
            open_stage_context(recipe).formatter,
            recipe.reward_model.max_length,
        )
        return cls(number, settings, load_comparisons(recipe).train, gold.dataset)

    def train(self, method: str, noise: float, sft: Path) -> dict[str, Any]:
        """Train one reward model and return its gold accuracy, rows and optimiser steps."""
        settings = [*self.settings, *METHODS[method]]
        recipe = load_recipe(RECIPE, settings).recipe
        training_rows = aggregated(
            flipped(self.comparisons, noise, self.number), recipe.reward_model
        )
        epochs = f"reward_model.num_train_epochs={len(self.comparisons) / len(training_rows)}"
        context = open_stage_context(load_recipe(RECIPE, [*settings, epochs]).recipe)
        rows = encode_comparisons(training_rows, context.formatter, recipe.reward_model.max_length)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(context, sft, rows, self.number, Path(folder), NullMonitor())
        pad = context.tokenizer.pad_token_id
        scores = (score_ids(trained.model, self.gold[f"{side}_ids"], pad, 64) for side in _SIDES)
        metrics = accuracy(*scores).metrics("gold_accuracy")
        return metrics | {"rows": len(training_rows), "steps": trained.steps}


def main() -> None:
    """Parse the command line, train and evaluate every model, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--noise", nargs="+", type=float, default=list(NOISE))
    parser.add_argument("--ways", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    torch.set_num_threads(1)
    sft = sft_checkpoint(CHECKPOINTS)
    started = time.perf_counter()
    runs_by_method: dict[str, dict[str, list[dict[str, Any]]]] = {
        method: {f"{noise:g}": [] for noise in options.noise} for method in options.ways
    }
    for done, number in enumerate(options.seeds, start=1):
        seed = Seed.of(number, options.pairs)
        for noise in options.noise:
            for method in options.ways:
                runs_by_method[method][f"{noise:g}"].append(seed.train(method, noise, sft))
        result = {
            "machine": describe(1),
            "pairs": options.pairs,
            "labels_per_pair": LABELS_PER_PAIR,
            "gold_pairs": len(seed.gold),
            "seeds": options.seeds[:done],
            "seconds": round(time.perf_counter() - started, 1),
            "ways": runs_by_method,
        }
        write("labels", result, options.out)
    show(
        f"Gold accuracy, mean of {len(options.seeds)} seeds",
        ["labels", *(f"{noise:.0%}" for noise in options.noise)],
        [[method, *map(_mean, by_noise.values())] for method, by_noise in runs_by_method.items()],
        f"{options.pairs} pairs, {LABELS_PER_PAIR} labels each; columns: share of flipped labels",
    )


def _mean(runs: list[dict[str, Any]]) -> str:
    return f"{np.mean([run['gold_accuracy'] for run in runs]):.1%}"


if __name__ == "__main__":
    main()
