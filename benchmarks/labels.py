"""What each way to learn from several labels a pair is worth, with labels of known noise.

    python -m benchmarks.labels

Three annotators of the embedded panel label each pair; on top of the panel's own disagreement every
label is then turned with a planted chance of 0 to 40 %. Each way trains a reward model on the same
labels with the same number of optimiser steps, and the model is judged on held-out pairs in the order
of the gold reward, which no training sees. One thread; the result is in benchmarks/results/labels.json.
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
WAYS: dict[str, list[str]] = {
    "as given": [],
    "label smoothing 0.1": ["reward_model.label_smoothing=0.1"],
    "majority": ["reward_model.labels=majority"],
    "soft": ["reward_model.labels=soft"],
    "weighted": ["reward_model.labels=weighted"],
    "soft, Dawid-Skene": ["reward_model.labels=soft", "reward_model.aggregation=dawid_skene"],
}


def sft_checkpoint(folder: Path) -> Path:
    """Train SFT once, unless that was done before; every reward model starts from it."""
    command = [sys.executable, "-m", "rlhfctl", "sft", str(RECIPE), "--quiet", "--run", "labels"]
    small = ["--set", "data.demonstrations.max_rows=1000"]
    subprocess.run([*command, "--runs-dir", str(folder), *small], check=True, cwd=ROOT)
    return folder / "labels" / "sft"


def turned(rows: Dataset, noise: float, seed: int) -> Dataset:
    """Return the rows with each label turned with a chance of `noise`."""
    rng = random.Random(f"turned {noise} {seed}")
    found = []
    for row in rows:
        if rng.random() < noise:
            row |= {"chosen": row["rejected"], "rejected": row["chosen"]}
        found.append(row)
    return type(rows).from_list(found)


@dataclass(frozen=True)
class Seed:
    """What all trainings of one seed share.

    Attributes:
        number: The recipe's seed.
        settings: Overrides of the base recipe.
        given: Comparisons to train on, a row a label.
        gold: Encoded held-out pairs in gold order.
    """

    number: int
    settings: list[str]
    given: Dataset
    gold: Dataset

    @classmethod
    def of(cls, number: int, pairs: int) -> Seed:
        """Draw the data of a seed."""
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

    def train(self, way: str, noise: float, sft: Path) -> dict[str, Any]:
        """Train one reward model; return its gold accuracy, and what it was trained on."""
        settings = [*self.settings, *WAYS[way]]
        recipe = load_recipe(RECIPE, settings).recipe
        learnt = aggregated(turned(self.given, noise, self.number), recipe.reward_model)
        epochs = f"reward_model.num_train_epochs={len(self.given) / len(learnt)}"
        session = open_stage_context(load_recipe(RECIPE, [*settings, epochs]).recipe)
        rows = encode_comparisons(learnt, session.formatter, recipe.reward_model.max_length)
        with tempfile.TemporaryDirectory() as folder:
            trained = train(session, sft, rows, self.number, Path(folder), NullMonitor())
        pad = session.tokenizer.pad_token_id
        scores = (score_ids(trained.model, self.gold[f"{side}_ids"], pad, 64) for side in _SIDES)
        metrics = accuracy(*scores).metrics("gold_accuracy")
        return metrics | {"rows": len(learnt), "steps": trained.metrics["steps"]}


def main() -> None:
    """Read the command line, train and judge every model, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--noise", nargs="+", type=float, default=list(NOISE))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()

    torch.set_num_threads(1)
    sft = sft_checkpoint(CHECKPOINTS)
    began = time.perf_counter()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        way: {f"{noise:g}": [] for noise in given.noise} for way in given.ways
    }
    for done, number in enumerate(given.seeds, start=1):
        seed = Seed.of(number, given.pairs)
        for noise in given.noise:
            for way in given.ways:
                found[way][f"{noise:g}"].append(seed.train(way, noise, sft))
        result = {
            "machine": describe(1),
            "pairs": given.pairs,
            "labels_per_pair": LABELS_PER_PAIR,
            "gold_pairs": len(seed.gold),
            "seeds": given.seeds[:done],
            "seconds": round(time.perf_counter() - began, 1),
            "ways": found,
        }
        write("labels", result, given.out)
    show(
        f"Gold accuracy, mean of {len(given.seeds)} seeds",
        ["labels", *(f"{noise:.0%}" for noise in given.noise)],
        [[way, *map(_mean, by_noise.values())] for way, by_noise in found.items()],
        f"{given.pairs} pairs, {LABELS_PER_PAIR} labels each; columns: share of labels turned",
    )


def _mean(runs: list[dict[str, Any]]) -> str:
    return f"{np.mean([run['gold_accuracy'] for run in runs]):.1%}"


if __name__ == "__main__":
    main()
