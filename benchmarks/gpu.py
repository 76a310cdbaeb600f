"""Everything that waits for a GPU, in order of worth, within a number of minutes.

    python -m benchmarks.gpu --minutes 25

Each measurement is a benchmark of this folder in a process of its own. Its result is written as soon
as it ends, to `gpu/NAME.json` beside the other results, and `gpu/summary.json` compares it with its bar. A
second call goes on with those that have no result. One whose time is up is ended and repeated then.
`--tiny` runs the same commands on a model of a few thousand weights, on a CPU too, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import machine, output
from benchmarks.ppo_vs_trl import PEER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GIB = 2**30
_REHEARSAL = ("--shape", "minute", "--prompt-length", "4", "--response-length", "6")


@dataclass(frozen=True)
class Figure:
    """A measured number and its bar.

    Attributes:
        name: What was measured, with its unit.
        value: The number.
        bar: Number to reach; None where there is none.
        at_most: Whether the bar is an upper bound.
    """

    name: str
    value: float
    bar: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool | None:
        """True if the bar is reached; None without a bar."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


@dataclass(frozen=True)
class Measurement:
    """One benchmark to run.

    Attributes:
        name: Name of its result.
        title: What it answers.
        minutes: Time that it is expected to take; it is not started with less left.
        module: Module of `benchmarks`.
        options: Its options.
        figures: Figures of the JSON that it wrote.
        needs_peer: Whether TRL's environment is needed (`make build/bench-trl/.set-up`).
        rehearsal: Further options of a rehearsal.
    """

    name: str
    title: str
    minutes: float
    module: str
    options: tuple[str, ...]
    figures: Callable[[dict[str, Any]], list[Figure]]
    needs_peer: bool = False
    rehearsal: tuple[str, ...] = ()

    def command(self, result: Path, *, tiny: bool) -> list[str]:
        """Return the command that writes the result."""
        options = [*_rehearsed(self.options), *self.rehearsal] if tiny else self.options
        return [sys.executable, "-m", self.module, *options, "--output", str(result)]


def _rehearsed(options: Sequence[str]) -> list[str]:
    """Return options for the smallest shape: unquantised, with its lengths and batches."""
    sized = ("--shape", "--quantization", "--prompt-length", "--response-length", "--batch")
    left: list[str] = []
    names = iter(options)
    for name in names:
        if name in sized:
            next(names)
        else:
            left.append(name)
    return [*left, *_REHEARSAL, "--batch", "8"]


def _memory(limit_gib: float | None, episodes: float | None) -> Callable[..., list[Figure]]:
    def figures(result: dict[str, Any]) -> list[Figure]:
        peaks, ppo = result["peak_bytes"], result["sides"]["rlhfctl PPO"]
        done = result["work"]["rollouts"] * result["work"]["batch"]
        return [
            Figure("peak of PPO, GiB", peaks["rlhfctl PPO"] / GIB, limit_gib, at_most=True),
            Figure("times an SFT step's peak", peaks["rlhfctl PPO"] / peaks["SFT step"], 1.3, True),
            Figure("episodes/s", done / sum(ppo["seconds"]), episodes),
        ]

    return figures


def _against_trl(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure(f"{name}: times TRL's episodes/s", comparison["ratio"], 3.0)
        for name, comparison in result["comparisons"].items()
    ]


def _decode(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure("share of generation", result["share_of_generation"]),
        Figure("tokens/s", result["tokens_per_second"]),
        Figure("share of the bandwidth limit", result["share_of_bandwidth_limit"]),
    ]


def _static_cache(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure("static cache: times the default's tokens/s", result["times_faster"]),
        Figure("static cache: tokens/s", result["static"]["tokens_per_second"]),
        Figure("static cache: s of the first call", result["first_seconds"]),
    ]


def _liger(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure("Liger: times the default's episodes/s", result["times_faster"]),
        Figure("Liger: times the default's memory", result["times_memory"]),
    ]


_LENGTHS = ("--prompt-length", "128", "--response-length", "256")
MEASUREMENTS = (
    Measurement(
        "mistral-7b",
        "PPO at torchtune's setting: 3.9 episodes/s within 68.6 GB on an A100",
        7.0,
        "benchmarks.memory",
        (
            *("--shape", "7b", "--prompt-length", "512", "--response-length", "58"),
            *("--batch", "128", "--minibatches", "8", "--epochs", "1", "--rollouts", "2"),
            *("--gradient-checkpointing", "--no-peer"),
        ),
        _memory(24.0, 8.0),
    ),
    Measurement(
        "qlora-8b",
        "8B in 4 bits with four roles on a 24 GB GPU",
        6.0,
        "benchmarks.memory",
        (
            *("--shape", "8b", "--quantization", "4bit", *_LENGTHS, "--batch", "8"),
            *("--minibatches", "2", "--gradient-checkpointing", "--no-peer"),
        ),
        _memory(24.0, None),
    ),
    Measurement(
        "decode-1.5b",
        "share of generation, and nearness to the bandwidth limit",
        3.0,
        "benchmarks.decode",
        ("--shape", "1.5b", "--lora", *_LENGTHS),
        _decode,
    ),
    Measurement(
        "static-cache-1.5b",
        "sampling with a static cache and CUDA graphs against the default",
        4.0,
        "benchmarks.static_cache",
        ("--shape", "1.5b", "--lora", *_LENGTHS),
        _static_cache,
    ),
    Measurement(
        "liger-1.5b",
        "PPO with Liger's kernels against PPO without (pip install 'rlhfctl[liger]')",
        4.0,
        "benchmarks.liger",
        ("--shape", "1.5b", "--lora", *_LENGTHS, "--batch", "32"),
        _liger,
        rehearsal=("--without",),
    ),
    *(
        Measurement(
            f"trl-{shape}",
            f"speed against TRL 1.12's PPO at {shape}",
            minutes,
            "benchmarks.ppo_vs_trl",
            ("--only", "lora", "--shape", shape, *_LENGTHS, "--rollouts", "3", "--runs", "1"),
            _against_trl,
            needs_peer=True,
        )
        for shape, minutes in (("0.5b", 4.0), ("1.5b", 6.0), ("8b", 12.0))
    ),
)


def main() -> None:
    """Run the measurements that have no result yet, until the time is up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="time for all of them")
    parser.add_argument("--only", nargs="+", choices=[m.name for m in MEASUREMENTS])
    parser.add_argument("--output", type=Path, default=output.RESULTS / "gpu", help="folder")
    parser.add_argument("--tiny", action="store_true", help="rehearse on a tiny model")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.tiny:
        parser.error("there is no CUDA GPU; --tiny rehearses the commands on the CPU")
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60.0 * options.minutes
    for measurement in MEASUREMENTS:
        if options.only is None or measurement.name in options.only:
            state = _measure(measurement, options.output, end, tiny=options.tiny)
            print(f"{measurement.name}: {state}", flush=True)
            _summarise(options.output, tiny=options.tiny)


def _measure(measurement: Measurement, folder: Path, end: float, *, tiny: bool) -> str:
    """Run a measurement unless it has a result; return what became of it."""
    result, log = folder / f"{measurement.name}.json", folder / f"{measurement.name}.log"
    left = end - time.monotonic()
    if result.exists():
        return "has a result"
    if measurement.needs_peer and not PEER.exists():
        return "not run: TRL's environment is missing (make build/bench-trl/.set-up)"
    if left < 60.0 * measurement.minutes and not tiny:
        return f"not run: needs {measurement.minutes:g} minutes, {left / 60:.1f} are left"
    partial = result.with_suffix(".partial")
    with log.open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                measurement.command(partial, tiny=tiny),
                cwd=output.ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "ended: the time is up"
    if done.returncode != 0:
        return f"failed with exit code {done.returncode}, see {log}"
    partial.replace(result)
    return "done"


def _summarise(folder: Path, *, tiny: bool) -> None:
    """Write and print the figures of all results in a folder; a rehearsal has no bars."""
    rows, summary = [], {}
    for measurement in MEASUREMENTS:
        result = folder / f"{measurement.name}.json"
        if not result.exists():
            continue
        figures = measurement.figures(json.loads(result.read_text(encoding="utf-8")))
        if tiny:
            figures = [replace(figure, bar=None) for figure in figures]
        summary[measurement.name] = [asdict(f) | {"holds": f.holds} for f in figures]
        rows += [_row(measurement.name, figure) for figure in figures]
    described = machine.describe(torch.get_num_threads())
    output.show(machine.title(described), ("", "figure", "measured", "bar", "holds"), rows)
    output.write("gpu", {"machine": described, "figures": summary}, folder / "summary.json")


def _row(name: str, figure: Figure) -> list[str]:
    bar = "" if figure.bar is None else f"{'≤' if figure.at_most else '≥'} {figure.bar:g}"
    holds = {None: "", True: "yes", False: "no"}[figure.holds]
    return [name, figure.name, f"{figure.value:.3g}", bar, holds]


if __name__ == "__main__":
    main()
