"""Gold reward of PPO by the rule that combines reward models, and by label noise.

    python -m benchmarks.reward_rules

Each label of the embedded comparisons is flipped with a probability of 0, 20 or 40 %. Reward models
of one SFT checkpoint are trained on the same labels with seeds of their own. Every rule combines
them: PPO maximises the result for a fixed number of episodes, and the gold reward, which neither has
seen, judges its policy on held-out prompts. `one` is the first model alone. The accuracy is that of
the combined score on held-out pairs in gold order. One thread, in one process; --out, by default
benchmarks/results/reward_rules.json, is updated after each level of noise, so an interrupted
benchmark resumes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.labels import RECIPE, flipped, sft_checkpoint
from benchmarks.machine import describe
from benchmarks.output import CHECKPOINTS, RESULTS, show, write
from rlhfctl.data.formatting import encode_comparisons
from rlhfctl.data.sources import gold_comparisons, load_comparisons
from rlhfctl.evaluation.preferences import accuracy
from rlhfctl.maths.sequences import Sequences
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.reward_model.training import train
from rlhfctl.stages.shared.averaged_rm import with_average
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_sources import RewardSources, extra_reward_models
from rlhfctl.stages.shared.score_normalization import normalize_scores
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context, save_trained

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset

NOISE = (0.0, 0.2, 0.4)
RULES = ("one", "mean", "worst", "uncertainty", "weight_average")
GOLD_PAIRS_DRAWN = 6_000
_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Sweep:
    """Settings of all runs.

    Attributes:
        pairs: Comparisons that each reward model is trained on.
        members: Reward models.
        episodes: Episodes of PPO.
        beta: KL coefficient; low, so that PPO exploits what it can.
        seed: Seed of the recipe.
    """

    pairs: int
    members: int
    episodes: int
    beta: float
    seed: int

    def settings(self, *more: str) -> list[str]:
        """Return the overrides of the base recipe."""
        return [
            *(f"seed={self.seed}", f"data.comparisons.max_rows={self.pairs}"),
            *("data.comparisons.held_out=0.05", "reward_model.calibration_samples=128"),
            *(f"ppo.episodes={self.episodes}", f"ppo.beta={self.beta}", "ppo.gate=warn"),
            *("ppo.eval_rollouts=100", "ppo.eval_prompts=256", "evaluation.num_prompts=64"),
            *("ppo.kl_stop=null", "ppo.save_minutes=null", *more),
        ]

    def rule_settings(self, rule: str, folders: Sequence[Path]) -> list[str]:
        """Return the overrides of one rule."""
        if rule == "one":
            return []
        listed = ", ".join(f'{{source: "{folder}"}}' for folder in folders[1:])
        return [f"ppo.reward_rule={rule}", f'ppo.reward_sources=[{{source: "rm"}}, {listed}]']


def train_members(sweep: Sweep, noise: float, sft: Path, folder: Path) -> list[Path]:
    """Train the reward models on labels with noise; return their folders."""
    context = open_stage_context(load_recipe(RECIPE, sweep.settings()).recipe)
    labels = flipped(load_comparisons(context.recipe).train, noise, sweep.seed)
    limit = context.recipe.reward_model.max_length
    rows = encode_comparisons(labels, context.formatter, limit)
    folders = []
    for number in range(sweep.members):
        target = folder / f"rm-{number}"
        target.mkdir()
        with tempfile.TemporaryDirectory() as scratch:
            seed = sweep.seed + 1_000 * number
            trained = train(context, sft, rows, seed, Path(scratch), NullMonitor())
        save_trained(context, trained.model, target, "rm", "SEQ_CLS")
        folders.append(target)
    normalize_scores(context, sft, folders, NullMonitor())
    return folders


def gold_accuracy(
    settings: list[str], inputs: Mapping[str, Path], gold: Dataset, folder: Path
) -> dict[str, Any]:
    """Return the accuracy of a rule's score on pairs in gold order."""
    context = open_stage_context(load_recipe(RECIPE, settings).recipe)
    section = context.recipe.ppo
    used = with_average(context, inputs, folder, NullMonitor())
    roles = open_roles(context, used, extra_reward_models(section))
    rewards = RewardSources.open(section).over(roles, context.formatter, PromptRows([], {}))
    scores = []
    for side in _SIDES:
        ids = [list(row) for row in gold[f"{side}_ids"]]
        batch = Sequences.from_lists(
            [row[:-1] for row in ids], [row[-1:] for row in ids], roles.pad_token_id, roles.device
        )
        combined = torch.zeros(len(ids))
        for rows, part in batch.in_chunks(64):
            combined[rows] = rewards.combine(rewards.scores_per_source(part, rows.tolist()))
        scores.append(combined.numpy())
    return accuracy(*scores).metrics("gold_accuracy")


def measure(sweep: Sweep, noise: float, sft: Path, gold: Dataset) -> dict[str, Any]:
    """Return the results of every rule at one level of noise."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folders = train_members(sweep, noise, sft, folder)
        inputs = {"sft": sft, "rm": folders[0]}
        for rule in RULES:
            output = folder / rule
            output.mkdir()
            settings = sweep.settings(*sweep.rule_settings(rule, folders))
            started = time.perf_counter()
            recipe = load_recipe(RECIPE, settings).recipe
            metrics = ppo.run(recipe, inputs, output, NullMonitor()).metrics
            results[rule] = {
                "seconds": round(time.perf_counter() - started, 1),
                **gold_accuracy(settings, inputs, gold, output),
                **{name: metrics["result"][name] for name in _RESULTS},
            }
    return results


_RESULTS = (
    *("kl", "proxy", "proxy_low", "proxy_high"),
    *("true_reward", "true_reward_low", "true_reward_high", "length"),
)


def main() -> None:
    """Measure every level of noise, print a table and write the result after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=1920)
    parser.add_argument("--beta", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", nargs="+", type=float, default=list(NOISE))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    torch.set_num_threads(1)
    sweep = Sweep(options.pairs, options.members, options.episodes, options.beta, options.seed)
    sft = sft_checkpoint(CHECKPOINTS)
    recipe = load_recipe(RECIPE, sweep.settings()).recipe
    gold = encode_comparisons(
        gold_comparisons(recipe, GOLD_PAIRS_DRAWN),
        open_stage_context(recipe).formatter,
        recipe.reward_model.max_length,
    ).dataset
    path = options.out or RESULTS / "reward_rules.json"
    result: dict[str, Any] = {"machine": describe(1), **vars(sweep), "gold_pairs": len(gold)}
    result |= {"seconds": {}, "noise": {}}
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if all(earlier[name] == value for name, value in vars(sweep).items()):
            result = earlier
    by_noise = result["noise"]
    for noise in options.noise:
        if f"{noise:g}" in by_noise:
            continue
        started = time.perf_counter()
        by_noise[f"{noise:g}"] = measure(sweep, noise, sft, gold)
        result["seconds"][f"{noise:g}"] = round(time.perf_counter() - started, 1)
        write("reward_rules", result, options.out)
    show(
        f"PPO against {sweep.members} reward models, {sweep.episodes:,} episodes",
        ["rule", *(f"{noise:.0%}" for noise in options.noise)],
        [[rule, *(_cell(by_noise[f"{n:g}"][rule]) for n in options.noise)] for rule in RULES],
        "gold reward with its 95 % interval, KL, accuracy in gold order; columns: flipped labels",
    )


def _cell(run: dict[str, Any]) -> str:
    low, high = run["true_reward_low"], run["true_reward_high"]
    return (
        f"{run['true_reward']:.2f} ({low:.2f} to {high:.2f}), KL {run['kl']:.1f}, "
        f"{run['gold_accuracy']:.1%}"
    )


if __name__ == "__main__":
    main()
