"""Peak memory of PPO, compared with an SFT step of the same model and with TRL's PPO.

`python -m benchmarks.memory` on a CPU; on a GPU `python -m benchmarks.memory --shape 8b
--quantization 4bit --prompt-length 128 --response-length 256 --batch 8 --minibatches 2
--gradient-checkpointing`. Each side runs in a separate process. The peak is of allocated memory on
a GPU, and of resident memory minus the libraries on a CPU; both include the models. An SFT step has
as many rows as a PPO minibatch, each as long as an episode.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import machine, output
from benchmarks.checkpoints import make
from benchmarks.ppo_vs_trl import PEER
from benchmarks.work import add_options, from_options

BAR_SFT, BAR_TRL = 1.3, 0.5


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--full", action="store_true", help="train all weights instead of LoRA")
    parser.add_argument(
        "--peer", type=Path, default=PEER, help="Python interpreter of the TRL environment"
    )
    parser.add_argument("--no-peer", action="store_true", help="skip TRL's PPO")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    defaults: dict[str, Any] = {"shape": "medium", "batch": 32, "epochs": 1, "rollouts": 1}
    work = from_options(options, lora=not options.full, **defaults)
    folder = output.CHECKPOINTS / f"{work.shape}-{'lora' if work.lora else 'full'}"
    make(work, folder)
    sides = {
        "rlhfctl PPO": output.in_process("benchmarks.rlhfctl_ppo", work, folder),
        "SFT step": output.in_process("benchmarks.sft_step", work, folder),
    }
    if not options.no_peer:
        sides["TRL PPO"] = output.in_process(
            "benchmarks.trl_peer.run", work, folder, python=options.peer
        )
    peaks = {name: metrics["peak_bytes"] - metrics["bare_bytes"] for name, metrics in sides.items()}
    described = machine.describe(work.threads)
    rows = [
        [name, output.megabytes(peak), f"{peaks['rlhfctl PPO'] / peak:.2f}"]
        for name, peak in peaks.items()
    ]
    output.show(
        f"Peak memory, {work.shape}, {machine.title(described)}",
        ("", "peak", "rlhfctl PPO / this"),
        rows,
        f"bars on a GPU: {BAR_SFT} times an SFT step, {BAR_TRL} times TRL's PPO",
    )
    result = {"machine": described, "work": work.as_json(), "peak_bytes": peaks, "sides": sides}
    output.write("memory", result, options.output)


if __name__ == "__main__":
    main()
