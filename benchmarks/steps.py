"""PPO with and without a critic on answers in steps, rewarded by the gold reward itself.

    python -m benchmarks.steps

`rlhfctl compare recipes/steps.yaml` trains against a reward model, which over-optimisation confounds.
Here PPO maximises the gold reward, from one SFT checkpoint and with one budget, so that advantage
estimators differ in nothing but how they find the sentence that earned it. The table has gold reward
over SFT and the win rate, on held-out prompts, of the last policy and at the KL that the best policies
of every run reach. Intervals are 95 %, over prompts: one run has no others. Runs stay in --runs-dir, so
an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.output import RESULTS, ROOT, show, write
from rlhfctl.evaluation.win_rate import pairwise_outcomes
from rlhfctl.report.sources import read_run
from rlhfctl.world.gold import gold_reward

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.results.training import HeldOutLine

RECIPE = ROOT / "recipes" / "steps.yaml"
VARIANTS = {
    "gae": [],
    "gae_lambda_1": ["ppo.gae_lambda=1.0"],
    "batch_mean": ["ppo.advantage_estimator=batch_mean"],
    "rloo": ["ppo.advantage_estimator=rloo", "ppo.responses_per_prompt=4"],
    "grpo": ["ppo.advantage_estimator=grpo", "ppo.responses_per_prompt=4"],
}
"""Variant -> its settings; the episodes are the same."""
VALUES = ("gain", "win_rate")


def gold(prompts: Sequence[Any], completions: Sequence[str]) -> list[float]:
    """Return the gold reward of each response: the reward that PPO is given here."""
    return [
        gold_reward(prompt[-1]["content"], completion)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def run(command: str, name: str, runs: Path, settings: Sequence[str]) -> None:
    """Run a stage, unless it is up to date.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", command, str(RECIPE), "--quiet", "--allow-code"),
            *("--run", name, "--runs-dir", str(runs)),
            *(part for setting in settings for part in ("--set", setting)),
        ],
        check=True,
        cwd=ROOT,
    )


def train(variant: str, runs: Path, settings: Sequence[str]) -> list[HeldOutLine]:
    """Train PPO by one of `VARIANTS` and return its held-out evaluations."""
    own = [
        f"ppo.sft={runs / 'sft' / 'sft'}",
        'ppo.reward_sources=[{source: "benchmarks.steps:gold"}]',
        "ppo.eval_rollouts=2",
        "ppo.kl_stop=null",
    ]
    run("ppo", variant, runs, [*own, *VARIANTS[variant], *settings])
    return list(read_run(runs / variant).held_out)


def frontier(lines: Sequence[HeldOutLine]) -> list[HeldOutLine]:
    """Return the evaluations that none with less KL equals in gold reward, SFT first.

    KL rises and falls within a run, so the others are not what the method can reach at their KL.
    """
    best: list[HeldOutLine] = []
    for line in sorted(lines, key=lambda line: line.kl.value):
        if not best or mean_gold(line) > mean_gold(best[-1]):
            best.append(line)
    return best


def mean_gold(line: HeldOutLine) -> float:
    """Return the mean gold reward of an evaluation."""
    return float(np.mean(line.per_prompt["true_reward"]))


def at_kl(lines: Sequence[HeldOutLine], kl: float) -> dict[str, float]:
    """Return gain and win rate over SFT at some KL, each with its interval.

    Every prompt's values are interpolated linearly in the root of KL between the evaluations around
    it; the interval is that of their mean over prompts.

    Args:
        lines: Held-out evaluations by KL; the first is of SFT.
        kl: Nats per response, at most the largest of the evaluations.
    """
    above = next(place for place, line in enumerate(lines) if line.kl.value >= kl)
    low, high = lines[max(0, above - 1)], lines[above]
    ends = np.sqrt([max(0.0, low.kl.value), high.kl.value])
    share = 1.0 if ends[0] == ends[1] else float((np.sqrt(kl) - ends[0]) / (ends[1] - ends[0]))
    first = lines[0].per_prompt["true_reward"]
    result: dict[str, float] = {}
    for name, compare in (("gain", np.subtract), ("win_rate", pairwise_outcomes)):
        before, after = (
            np.asarray(compare(np.asarray(line.per_prompt["true_reward"]), np.asarray(first)))
            for line in (low, high)
        )
        values = (1.0 - share) * before + share * after
        error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        mean = float(values.mean())
        result |= {name: mean, f"{name}_low": mean - error, f"{name}_high": mean + error}
    return result


def cell(result: dict[str, float], name: str) -> str:
    """Return a value with its interval."""
    return f"{result[name]:.2f} ({result[f'{name}_low']:.2f} to {result[f'{name}_high']:.2f})"


def main() -> None:
    """Train each variant, write the result and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--set", nargs="*", default=[], help="Recipe keys, as KEY=VALUE.")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "build" / "steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "steps.json")
    options = parser.parse_args()

    runs: Path = options.runs_dir.resolve()
    run("sft", "sft", runs, options.set)
    lines = {name: train(name, runs, options.set) for name in options.variants}
    best = {name: frontier(each) for name, each in lines.items()}
    kl = min(each[-1].kl.value for each in best.values())
    at_one_kl = {name: at_kl(each, kl) for name, each in best.items()}
    last = {name: at_kl([each[0], each[-1]], each[-1].kl.value) for name, each in lines.items()}
    curves = {
        name: [(line.step, line.kl.value, mean_gold(line)) for line in each]
        for name, each in lines.items()
    }
    result = {"kl": kl, "at_kl": at_one_kl, "last": last, "step_kl_gold": curves}
    write("steps", result, options.out)
    rows = [
        [
            name,
            f"{curves[name][-1][1]:.1f}",
            *(cell(last[name], value) for value in VALUES),
            *(cell(at_one_kl[name], value) for value in VALUES),
        ]
        for name in lines
    ]
    columns = ("variant", "KL", "gain", "win rate", "gain at one KL", "win rate at one KL")
    show(f"By the gold reward; the one KL is {kl:.1f} nats", columns, rows)


if __name__ == "__main__":
    main()
