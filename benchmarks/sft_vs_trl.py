"""Speed and memory of `rlhfctl sft` on SmolLM2-135M beside TRL's SFTTrainer on the same rows.

`python -m benchmarks.sft_vs_trl` after `make real`, or after `make build/smollm2/config.json
build/one-sentence/prompts.jsonl`, its preparation.

rlhfctl's stage trains with a subclass of the same trainer, so the comparison is of what it adds and of
its layers. The sides alternate, each in a process of its own; timed is `Trainer.train`, without loading and
evaluation. Peak memory is resident memory within it, beyond that of the process with its libraries. Tokens
are alike but for one of each row: TRL also trains the newline that the chat template has after EOS.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine, output

BASE = output.ROOT / "build" / "smollm2"
SIDES = ("rlhfctl", "trl")


def run(side: str, base: Path, epochs: int, threads: int) -> dict[str, Any]:
    """Return what one process of a side measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        arguments = [side, str(base), str(epochs), str(threads), str(path)]
        command = [sys.executable, "-m", "benchmarks.sft_side", *arguments]
        subprocess.run(command, check=True, cwd=output.ROOT)
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="runs per side, alternating")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.runs):
        for side in SIDES:
            runs[side].append(run(side, options.base, options.epochs, options.threads))
    _require_alike(runs)
    medians = {side: _medians(runs[side]) for side in SIDES}
    described = machine.describe(options.threads)
    rows = [
        [
            side,
            f"{found['tokens_per_second']:,.0f}",
            f"{found['tokens_per_cpu_second']:,.0f}",
            output.megabytes(found["peak_bytes"]),
        ]
        for side, found in medians.items()
    ]
    output.show(
        f"SFT of SmolLM2-135M, {machine.title(described)}",
        ("", "tokens/s", "tokens per CPU second", "peak memory"),
        rows,
        f"{runs['rlhfctl'][0]['tokens']:,} tokens a run, {runs['rlhfctl'][0]['trained']:,} of them trained",
    )
    result = {"machine": described, "epochs": options.epochs, "medians": medians, "runs": runs}
    output.write("sft_vs_trl", result, options.output)


def _require_alike(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Stop unless all runs trained on the same rows, and on one token more of each in TRL."""
    ours = runs["rlhfctl"][0]
    for side, more in (("rlhfctl", 0), ("trl", 1)):
        for result in runs[side]:
            for key in ("tokens", "trained"):
                if result["rows"] != ours["rows"] or result[key] != ours[key] + more * ours["rows"]:
                    sys.exit(f"the sides did not train on the same tokens: {side}, {result}")


def _medians(results: list[dict[str, Any]]) -> dict[str, float]:
    def median(values: list[float]) -> float:
        return float(statistics.median(values))

    return {
        "tokens_per_second": median([r["tokens"] / sum(r["seconds"]) for r in results]),
        "tokens_per_cpu_second": median([r["tokens"] / sum(r["cpu_seconds"]) for r in results]),
        "peak_bytes": median([r["peak_bytes"] - r["bare_bytes"] for r in results]),
    }


if __name__ == "__main__":
    main()
