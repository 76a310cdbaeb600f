"""Speed and memory of PPO by model size, response length and batch size, with a plot.

`python -m benchmarks.scaling` on a CPU; on a GPU `--shapes 0.5b 1.5b 8b --lora`. One number
varies at a time, the others are set by the options. Each point runs in a separate process.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.shapes import SHAPES
from benchmarks.work import Work, add_options, from_options

PLOT = output.ROOT / "docs" / "images" / "ppo-scaling.png"
AXES = {
    "weights": "decoder weights",
    "response_length": "tokens per response",
    "batch": "episodes per rollout",
}


def main() -> None:
    """Read the command line, measure, print, plot and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--response-lengths", nargs="+", type=int)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--plot", type=Path, default=PLOT)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    work = from_options(options, lora=options.lora, epochs=2, rollouts=2, batch=32)
    moved = {
        "weights": options.shapes or ["tiny", "small", "medium"],
        "response_length": options.response_lengths or [16, 48, 128, 256],
        "batch": options.batches or [8, 32, 128],
    }
    points = measure(work, moved)
    described = machine.describe(work.threads)
    show(points, machine.title(described))
    plot(points, work, machine.title(described), options.plot)
    result = {"machine": described, "work": work.as_json(), "points": points}
    output.write("scaling", result, options.output)


def measure(work: Work, moved: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return a point for each value of each axis."""
    points = []
    for axis, values in moved.items():
        for value in values:
            changed = work.but(**{"shape" if axis == "weights" else axis: value})
            folder = output.CHECKPOINTS / f"{changed.shape}-{'lora' if work.lora else 'full'}"
            make(changed, folder)
            metrics = output.in_process("benchmarks.rlhfctl_ppo", changed, folder)
            points.append(
                {
                    "axis": axis,
                    "value": value,
                    "at": SHAPES[value].decoder_weights if axis == "weights" else value,
                    "episodes_per_second": changed.episodes / sum(metrics["seconds"]),
                    "episodes_per_cpu_second": changed.episodes / sum(metrics["cpu_seconds"]),
                    "peak_bytes": metrics["peak_bytes"] - metrics["bare_bytes"],
                    "load": metrics["load"],
                }
            )
    return points


def show(points: list[dict[str, Any]], title: str) -> None:
    """Print the points."""
    rows = [
        [
            AXES[point["axis"]],
            str(point["value"]),
            f"{point['episodes_per_second']:.2f}",
            f"{point['episodes_per_cpu_second']:.2f}",
            output.megabytes(point["peak_bytes"]),
        ]
        for point in points
    ]
    columns = ("varied", "value", "episodes/s", "episodes/CPU s", "peak memory")
    output.show(f"PPO against size, {title}", columns, rows)


def plot(points: list[dict[str, Any]], work: Work, title: str, path: Path) -> None:
    """Plot speed above memory, one column per axis, and save the image."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure, panels = plt.subplots(2, len(AXES), figsize=(11, 5.5), sharex="col", sharey="row")
    on_cpu = "GPU" not in title and "NVIDIA" not in title
    speed = "episodes_per_cpu_second" if on_cpu else "episodes_per_second"
    for column, (axis, label) in enumerate(AXES.items()):
        series = [point for point in points if point["axis"] == axis]
        positions = [point["at"] for point in series]
        panels[0][column].plot(positions, [point[speed] for point in series], "o-", color="#1f4e79")
        panels[1][column].plot(
            positions, [point["peak_bytes"] / 2**20 for point in series], "o-", color="#a34700"
        )
        panels[1][column].set_xlabel(label)
        for panel in (panels[0][column], panels[1][column]):
            panel.set(xscale="log", yscale="log")
            labels = [f"{v / 1e6:.1f} M" if axis == "weights" else str(v) for v in positions]
            panel.set_xticks(positions, labels)
            panel.minorticks_off()
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.yaxis.set_major_formatter(ScalarFormatter())
            panel.grid(visible=True, alpha=0.3)
    panels[0][0].set_ylabel("episodes / CPU second" if on_cpu else "episodes / second")
    panels[1][0].set_ylabel("peak memory, MiB")
    kind = "LoRA" if work.lora else "full fine-tuning"
    figure.suptitle(
        f"PPO, {kind}: {work.shape}, {work.prompt_length}+{work.response_length} tokens, batch "
        f"{work.batch}, {work.epochs} epochs of {work.minibatches} steps\n{title}",
        fontsize=10,
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
