"""Ablations of PPO settings on the embedded world, where the true reward is known.

    python benchmarks/learning.py --variants base batch_mean --seeds 0 1 2

Every variant is recipes/base.yaml with the overrides of `VARIANTS`. Variants share one SFT checkpoint
and reward model per seed. The responses of every rollout are scored by the gold reward, which PPO
never uses. The table has, per seed, means over the last sixth of the rollouts of gold reward, KL
divergence and response length. It also has the gold reward at which the smoothed KL divergence first
reaches `--at-kl`, by linear interpolation. The curves are written to --out as JSON, and --plot draws
gold reward against KL divergence. A run takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rlhfctl.ppo.rollout import Rollout

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "base.yaml"
CurvesByVariant = dict[str, dict[str, dict[str, list[float]]]]
"""Variant -> seed -> metric -> value per rollout."""

SHARE = 6
"""Smoothing window of the curves: one sixth of the rollouts."""

SMALL = ["ppo.rollout_batch_size=32", "ppo.minibatch_size=16", "ppo.learning_rate=1e-3"]
TINY = [
    *("ppo.rollout_batch_size=8", "ppo.minibatch_size=8", "ppo.episodes=1600"),
    *("ppo.learning_rate=1e-3", "ppo.warmup_rollouts=10"),
]
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "batch_mean": ["ppo.advantage_estimator=batch_mean"],
    "small_batch": SMALL,
    "small_batch_mean": [*SMALL, "ppo.advantage_estimator=batch_mean"],
    "tiny_batch": TINY,
    "tiny_batch_mean": [*TINY, "ppo.advantage_estimator=batch_mean"],
    **{f"beta_{beta}": [f"ppo.beta={beta}"] for beta in ("0", "0.02", "0.2", "1")},
    "value_clip": ["ppo.value_clip_range=0.2"],
    "strong_critic": ["ppo.value_learning_rate=1e-2", "ppo.critic_warmup_rollouts=2"],
    "critic_from_sft": ["ppo.critic_init=sft"],
    "critic_warmup_3": ["ppo.critic_warmup_rollouts=3"],
    "no_advantage_whitening": ["ppo.whiten_advantages=false"],
    "reward_whitening": ["ppo.whiten_rewards=true"],
    "score_running": ["ppo.score_normalization=running"],
    "kept_scores_without_eos": ["ppo.missing_eos_score=null"],
    "kl_loss_k2": ["ppo.kl_penalty=loss", "ppo.kl_estimator=k2"],
    "kl_loss_k3": ["ppo.kl_penalty=loss", "ppo.kl_estimator=k3"],
    "lambda_1": ["ppo.gae_lambda=1.0"],
    "one_epoch": ["ppo.epochs=1"],
    "four_epochs_one_minibatch": ["ppo.epochs=4", "ppo.minibatch_size=128"],
    "four_responses": ["ppo.responses_per_prompt=4"],
    "ptx": ["ppo.ptx_coefficient=1.0"],
    "dual_clip": ["ppo.dual_clip=3.0"],
    "ema": ["ppo.ema_decay=0.8"],
    "temperature_0.7": ["generation.temperature=0.7"],
    "adam_epsilon_1e-5": ["ppo.adam_epsilon=1e-5"],
}


def checkpoints(seed: int, runs: Path) -> dict[str, Path]:
    """Train SFT and the reward model of a seed, unless they are up to date."""
    for command in ("sft", "train-rm"):
        subprocess.run(
            [
                *(sys.executable, "-m", "rlhfctl", command, str(RECIPE), "--quiet"),
                *("--seed", str(seed), "--run", f"seed-{seed}", "--runs-dir", str(runs)),
            ],
            check=True,
        )
    return {name: runs / f"seed-{seed}" / name for name in ("sft", "rm")}


def train(variant: str, seed: int, inputs: dict[str, Path]) -> dict[str, list[float]]:
    """Run PPO and return gold reward, proxy score, KL and length per rollout."""
    from rlhfctl.recipe.load import load_recipe
    from rlhfctl.run.monitor import NullMonitor
    from rlhfctl.stages.ppo.stage import open_trainer
    from rlhfctl.stages.shared.gold import gold_rewards

    overrides = [f"seed={seed}", "ppo.kl_stop=null", "ppo.samples_per_run=100000"]
    recipe = load_recipe(RECIPE, [*overrides, *VARIANTS[variant]]).recipe
    curves: dict[str, list[float]] = {"gold": [], "score": [], "kl": [], "length": []}
    with tempfile.TemporaryDirectory() as folder:
        opened = open_trainer(recipe, inputs, Path(folder), NullMonitor())

        def record(episodes: int, rollout: Rollout) -> None:
            batch, decode = rollout.sequences, opened.context.formatter.decode
            prompts = [opened.prompts[row] for row in rollout.rows]
            texts = [decode(ids) for ids in batch.response_lists()]
            gold = gold_rewards(recipe, prompts, texts)
            assert gold is not None, "the prompts are the embedded world's"
            curves["gold"].append(float(np.mean(gold)))
            curves["score"].append(float(rollout.model_scores.mean()))
            curves["kl"].append(float(rollout.kl.mean()))
            curves["length"].append(float(batch.response_lengths.float().mean()))

        opened.trainer.hooks.keep_samples = record
        opened.trainer.train()
    return curves


def smooth(curves: dict[str, list[float]], name: str) -> np.ndarray:
    """Return the moving average of a curve over a sixth of the rollouts."""
    window = max(1, len(curves[name]) // SHARE)
    return np.convolve(curves[name], np.ones(window) / window, "valid")


def gold_at(curves: dict[str, list[float]], kl: float) -> float:
    """Return the gold reward where the KL divergence first reaches `kl`; NaN if it never does."""
    divergence, gold = smooth(curves, "kl"), smooth(curves, "gold")
    reached = np.nonzero(divergence >= kl)[0]
    if len(reached) == 0:
        return float("nan")
    after = int(reached[0])
    if after == 0:
        return float(gold[0])
    share = (kl - divergence[after - 1]) / (divergence[after] - divergence[after - 1])
    return float(gold[after - 1] + share * (gold[after] - gold[after - 1]))


def draw(curves_by_variant: CurvesByVariant, variants: list[str], path: Path) -> None:
    """Draw gold reward against KL divergence, one line per seed, one colour per variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, variant in enumerate(variants):
        for number, run in enumerate(curves_by_variant[variant].values()):
            axes.plot(
                smooth(run, "kl"),
                smooth(run, "gold"),
                color=f"C{index}",
                linewidth=1.2,
                label=variant if number == 0 else None,
            )
    axes.set_xlabel("KL divergence from the reference, nats per response")
    axes.set_ylabel("gold reward")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=["base"], choices=sorted(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--at-kl", type=float, default=1.0, help="Nats per response.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "build" / "learning")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "learning.json")
    parser.add_argument("--plot", type=Path, help="Output PNG file.")
    options = parser.parse_args()

    inputs = {seed: checkpoints(seed, options.runs_dir) for seed in options.seeds}
    curves_by_variant: CurvesByVariant = {}
    if options.out.exists():
        curves_by_variant = json.loads(options.out.read_text())["curves"]
    for variant in options.variants:
        for seed in options.seeds:
            done = curves_by_variant.setdefault(variant, {})
            if str(seed) not in done:
                done[str(seed)] = train(variant, seed, inputs[seed])
            write(options.out, curves_by_variant, options.at_kl)
    show(curves_by_variant, options.variants, options.at_kl)
    if options.plot is not None:
        draw(curves_by_variant, options.variants, options.plot)


def write(path: Path, curves_by_variant: CurvesByVariant, at_kl: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": platform.processor() or platform.machine(), "python": sys.version}
    path.write_text(
        json.dumps({"machine": machine, "at_kl": at_kl, "curves": curves_by_variant}, indent=1)
    )


def show(curves_by_variant: CurvesByVariant, variants: list[str], at_kl: float) -> None:
    table = Table("variant", "gold, last", "KL, last", f"gold at KL {at_kl:g}", "length, last")

    def last(curves: dict[str, list[float]], name: str) -> str:
        return f"{smooth(curves, name)[-1]:.2f}"

    for variant in variants:
        runs = list(curves_by_variant[variant].values())
        table.add_row(
            variant,
            " / ".join(last(run, "gold") for run in runs),
            " / ".join(last(run, "kl") for run in runs),
            " / ".join(f"{gold_at(run, at_kl):.2f}" for run in runs),
            " / ".join(last(run, "length") for run in runs),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
