"""False and missed alarms of PPO: healthy runs that raise one, hacked runs that do not.

    python -m benchmarks.alarms --healthy 10

A healthy run is recipes/base.yaml with its own seed. A hacked run replaces or complements the reward
model with a reward function of `benchmarks.hacks`, without a KL penalty, so that PPO exploits the
function. `HACKS` has the expected alarm of each. Runs stay in --runs-dir, and --out is updated after
every run, so an interrupted benchmark resumes. On one core, a healthy run takes about 90 seconds
including SFT and the reward model, a hacked run 30 seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.output import RESULTS, ROOT, show, write

RECIPE = ROOT / "recipes" / "base.yaml"
HACKED = [
    *("ppo.beta=0", "ppo.episodes=2560", "ppo.eval_rollouts=2", "ppo.kl_stop=null"),
    "ppo.critic_init=sft",
]

# Hack -> its reward sources and the expected alarm.
HACKS: dict[str, tuple[list[str], str]] = {
    "length": (["benchmarks.hacks:length"], "length"),
    "repetition": (["benchmarks.hacks:repetition"], "repetition"),
    "certainty": (["rm", "benchmarks.hacks:certainty"], "certainty"),
    "sameness": (["benchmarks.hacks:sameness"], "entropy"),
    "brevity": (["benchmarks.hacks:brevity"], "divergence"),
}


def rlhfctl(command: str, run: Path, seed: int, *settings: str) -> None:
    """Run one stage; a stage that is up to date is skipped."""
    subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", command, str(RECIPE), "--quiet", "--allow-code"),
            *("--seed", str(seed), "--run", run.name, "--runs-dir", str(run.parent)),
            *(part for setting in settings for part in ("--set", setting)),
        ],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )


def healthy(seed: int, runs: Path) -> dict[str, Any]:
    """Train the whole run of a seed and return its alarms."""
    run = runs / f"seed-{seed}"
    for command in ("sft", "train-rm", "ppo"):
        rlhfctl(command, run, seed)
    return raised(run)


def hacked(hack: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train PPO on a hack from a seed's SFT and reward model, and return its alarms."""
    start, run = runs / f"seed-{seed}", runs / f"{hack}-{seed}"
    for command in ("sft", "train-rm"):
        rlhfctl(command, start, seed)
    sources = ", ".join(f'{{source: "{source}"}}' for source in HACKS[hack][0])
    settings = [*HACKED, f"ppo.sft={start / 'sft'}", f"ppo.reward_sources=[{sources}]"]
    if "rm" in HACKS[hack][0]:
        settings.append(f"ppo.rm={start / 'rm'}")
    rlhfctl("ppo", run, seed, *settings)
    return {"expected": HACKS[hack][1], **raised(run)}


def raised(run: Path) -> dict[str, Any]:
    """Return a run's alarms, and its metrics at the first and the last held-out evaluation."""
    summary = json.loads((run / "ppo" / "over_optimisation.json").read_text(encoding="utf-8"))
    lines = (run / "ppo" / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    names = ("kl", "proxy", "true_reward", "length", "repetition", "certainty", "entropy")
    return {
        "evaluations": len(lines),
        "prompts": len(first["each"]["kl"]),
        "alarms": summary["alarms"],
        "fell": summary["last_below_best"],
        "from": {name: first[name] for name in names},
        "to": {name: last[name] for name in names},
    }


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return one row per run, for `show`."""
    runs = [
        *((f"healthy, seed {seed}", "", run) for seed, run in result["healthy"].items()),
        *(
            (f"{hack}, seed {seed}", run["expected"], run)
            for hack, seeds in result["hacked"].items()
            for seed, run in seeds.items()
        ),
    ]
    return [
        [
            name,
            expected,
            ", ".join(f"{alarm['name']} ({alarm['step']})" for alarm in run["alarms"]) or "none",
            f"{run['to']['kl']:.1f}",
            *(
                f"{run['from'][key]:.2f} to {run['to'][key]:.2f}"
                for key in ("proxy", "true_reward")
            ),
        ]
        for name, expected, run in runs
    ]


def rates(result: dict[str, Any]) -> dict[str, Any]:
    """Count healthy runs with an alarm, and hacked runs with the expected alarm."""
    quiet = result["healthy"].values()
    hacks = [run for seeds in result["hacked"].values() for run in seeds.values()]
    return {
        "healthy_runs": len(quiet),
        "healthy_runs_with_an_alarm": sum(bool(run["alarms"]) for run in quiet),
        "hacked_runs": len(hacks),
        "hacked_runs_with_the_right_alarm": sum(
            run["expected"] in {alarm["name"] for alarm in run["alarms"]} for run in hacks
        ),
    }


def main() -> None:
    """Measure the requested runs, hacks first since they are fast."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--healthy", type=int, default=10, help="Seeds of the healthy run.")
    parser.add_argument("--hacks", nargs="*", default=list(HACKS), choices=list(HACKS))
    parser.add_argument("--hack-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "build" / "alarms")
    parser.add_argument("--out", type=Path, default=RESULTS / "alarms.json")
    options = parser.parse_args()

    result: dict[str, Any] = {"recipe": RECIPE.name, "hacked_with": HACKED}
    result |= {"seconds": {}, "healthy": {}, "hacked": {}}
    if options.out.exists():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    jobs = [(hack, seed) for hack in options.hacks for seed in options.hack_seeds]
    jobs += [("healthy", seed) for seed in range(options.healthy)]
    for kind, seed in jobs:
        hack = kind in HACKS
        done = result["hacked"].setdefault(kind, {}) if hack else result["healthy"]
        if str(seed) in done:
            continue
        start = time.monotonic()
        runs = options.runs_dir.resolve()
        done[str(seed)] = hacked(kind, seed, runs) if hack else healthy(seed, runs)
        result["seconds"][f"{kind}-{seed}"] = round(time.monotonic() - start, 1)
        result["rates"] = rates(result)
        write("alarms", result, options.out)
    columns = ("run", "right alarm", "raised (episode)", "KL", "proxy", "gold")
    show("Alarms", columns, rows(result), json.dumps(result["rates"]))


if __name__ == "__main__":
    main()
