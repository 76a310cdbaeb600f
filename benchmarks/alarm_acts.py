"""Gold reward of PPO runs that act on their alarms, against the best checkpoint of one that does not.

    python -m benchmarks.alarm_acts

Five hacked runs, one for each planted reward function of `benchmarks.hacks`, with a small beta, and
five healthy ones, recipes/base.yaml with a seed each. A hacked run is trained with every value of
`ppo.on_alarm` but `stop`, whose result is the best checkpoint up to the first alarm. A healthy run
without an alarm is the same for all values, so it is trained once. The best checkpoint is the
alternative that costs nothing: half of the prompts chooses it, the other half measures it, and the
reverse. Runs stay in --runs-dir, and --out is updated after every run, so an interrupted benchmark
resumes. The runs of `benchmarks.alarms` provide SFT and reward models.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.alarms import HACKS, rlhfctl
from benchmarks.output import RESULTS, ROOT, show, write

ACTS = ("warn", "raise_beta", "rollback")
HACKED = [
    *("ppo.beta=0.005", "ppo.eval_rollouts=2", "ppo.kl_stop=null", "ppo.critic_init=sft"),
    "ppo.alarm_beta_factor=4",
]
# Without a weight the reward model would not be there, and neither would its states.
_RM = '{source: "rm", weight: 0.001}'


def trained(kind: str, seed: int, on_alarm: str, episodes: int, runs: Path) -> dict[str, Any]:
    """Train one run and return its held-out evaluations, alarms and acts."""
    start = runs / f"seed-{seed}"
    for command in ("sft", "train-rm"):
        rlhfctl(command, start, seed)
    run = runs / f"acts-{kind}-{seed}-{on_alarm}"
    settings = [f"ppo.sft={start / 'sft'}", f"ppo.rm={start / 'rm'}", f"ppo.episodes={episodes}"]
    settings.append(f"ppo.on_alarm={on_alarm}")
    if kind in HACKS:
        sources = [f'{{source: "{source}"}}' for source in HACKS[kind][0]]
        sources += [] if "rm" in HACKS[kind][0] else [_RM]
        settings += [*HACKED, f"ppo.reward_sources=[{', '.join(sources)}]"]
    rlhfctl("ppo", run, seed, *settings)
    return measured(run)


def measured(run: Path) -> dict[str, Any]:
    """Return gold of the last and the best policy, and what the alarms saw and did."""
    text = (run / "ppo" / "held_out.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    summary = json.loads((run / "ppo" / "over_optimisation.json").read_text(encoding="utf-8"))
    gold = np.array([line["each"]["true_reward"] for line in lines])
    steps = [line["step"] for line in lines]
    first = min((alarm["step"] for alarm in summary["alarms"]), default=steps[-1])
    until = steps.index(first) + 1
    return {
        "gold": [round(float(value), 4) for value in gold.mean(axis=1)],
        "last": float(gold[-1].mean()),
        "best": best_gold(gold),
        "best_until_alarm": best_gold(gold[:until]),
        "kl": lines[-1]["kl"],
        "steps": steps,
        "state_distance": [line.get("state_distance") for line in lines],
        "saturated_share": [line.get("saturated_share") for line in lines],
        "alarms": [[alarm["name"], alarm["step"]] for alarm in summary["alarms"]],
        "acts": [[act["kind"], act["step"]] for act in summary.get("acts", [])],
    }


def best_gold(gold: np.ndarray) -> float:
    """Return gold of the best evaluation, which the other half of the prompts chooses.

    Args:
        gold: [evaluations, prompts].
    """
    even = np.arange(gold.shape[1]) % 2 == 0
    halves = [(even, ~even), (~even, even)]
    values = [gold[gold[:, chooses].mean(axis=1).argmax(), judged] for chooses, judged in halves]
    return float(np.concatenate(values).mean())


def differences(hacked: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """Return the mean difference to `warn`'s best checkpoint over hacks, with a 95 % t interval.

    Args:
        hacked: Hack -> value of `on_alarm` -> result; only hacks with all of them count.
    """
    complete = [runs for runs in hacked.values() if len(runs) == len(ACTS)]
    found: dict[str, list[float]] = {}
    if len(complete) < 2:
        return found
    results = {
        **{f"{act}, last policy": [runs[act]["last"] for runs in complete] for act in ACTS},
        **{f"{act}, best policy": [runs[act]["best"] for runs in complete] for act in ACTS[1:]},
        "stop, best policy": [runs["warn"]["best_until_alarm"] for runs in complete],
    }
    best = np.array([runs["warn"]["best"] for runs in complete])
    for name, values in results.items():
        gains = np.array(values) - best
        half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
        mean = float(gains.mean())
        found[name] = [round(mean, 4), round(mean - half, 4), round(mean + half, 4)]
    return found


def main() -> None:
    """Train the runs that are missing, print and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hacks", nargs="*", default=list(HACKS), choices=list(HACKS))
    parser.add_argument("--healthy", type=int, default=5, help="Seeds of the healthy run.")
    parser.add_argument("--episodes", type=int, default=1792)
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "build" / "alarms")
    parser.add_argument("--out", type=Path, default=RESULTS / "alarm_acts.json")
    options = parser.parse_args()

    result: dict[str, Any] = {"hacked_with": HACKED, "episodes": options.episodes, "seconds": {}}
    result |= {"hacked": {}, "healthy": {}, "gain_over_best": {}}
    if options.out.exists():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    jobs = [("hacked", hack, 0, act) for hack in options.hacks for act in ACTS]
    jobs += [("healthy", str(seed), seed, "warn") for seed in range(options.healthy)]
    runs = options.runs_dir.resolve()
    for group, name, seed, act in jobs:
        done = result[group].setdefault(name, {})
        if act in done:
            continue
        started = time.monotonic()
        kind = name if group == "hacked" else "healthy"
        done[act] = trained(kind, seed, act, options.episodes, runs)
        result["seconds"][f"{name} {act}"] = round(time.monotonic() - started, 1)
        result["gain_over_best"] = differences(result["hacked"])
        write("alarm_acts", result, options.out)
    rows = [
        [name, act, *(f"{run[key]:.2f}" for key in ("last", "best", "kl")), _events(run)]
        for group in ("hacked", "healthy")
        for name, runs_by_act in result[group].items()
        for act, run in runs_by_act.items()
    ]
    columns = ("run", "on_alarm", "gold, last", "gold, best", "KL", "alarms and acts (episode)")
    show("Acting on alarms", columns, rows, json.dumps(result["gain_over_best"]))


def _events(run: dict[str, Any]) -> str:
    return ", ".join(f"{name} ({step})" for name, step in [*run["alarms"], *run["acts"]]) or "none"


if __name__ == "__main__":
    main()
