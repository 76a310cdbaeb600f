"""The real command line over stages that take no time: ``python tiny.py sft ...``.

Each stage writes a file and a few metrics. TINY says what else one does, as STAGE:WHAT, or
STAGE:WHAT@RANK in one of several processes only.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import types
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DivergedError
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison, EvaluationResult, PolicyMetrics
from rlhfctl.results.io import to_json
from rlhfctl.results.training import DPOResult, PPOResult, RewardModelResult, SFTResult
from rlhfctl.run import stop
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.run.sealed import seal
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor

METRICS: dict[str, Any] = {
    "sft": SFTResult(3.0, 1.5, 0.5, 0.7, 2.0, 8, 2, 2, 100, 1.0),
    "reward_model": RewardModelResult(
        Estimate(0.8, 0.75, 0.85), Estimate(0.6), 8, 1.0, -1.0, 1.0, 0.5, 8, 2
    ),
    "ppo": PPOResult(1, 8, 0, 0, {}, {"score": 1.0, "kl": 6.0}),
    "dpo": DPOResult(Estimate(0.7, 0.6, 0.8), 0.4, 0.1, 0.5, 8, 0.6, 8, 2),
    "evaluation": EvaluationResult(
        prompts=8,
        policies={
            "sft": PolicyMetrics(
                Estimate(0.0), 8.0, 1.0, 0.0, 1.0, Estimate(0.0), gold=Estimate(0.2)
            ),
            "ppo": PolicyMetrics(
                Estimate(6.0), 8.0, 1.0, 0.0, 1.0, Estimate(1.0), gold=Estimate(0.6)
            ),
        },
        comparison=Comparison(
            judge="gold",
            win_rate=Estimate(0.7, 0.65, 0.75),
            gold_win_rate=Estimate(0.7, 0.65, 0.75),
        ),
    ),
}


def chatter(_output: Path) -> None:
    print("library chatter on stdout")
    os.write(2, b"library chatter on stderr\n")
    warnings.warn("library warning", stacklevel=1)
    logging.getLogger("library").error("library record")


def wait(output: Path) -> None:
    (output.parent / "waiting").write_text("")
    time.sleep(60)


def wait_with_checkpoint(output: Path) -> None:
    """Wait with a checkpoint, which process 0 saves."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(60)
        return
    checkpoint = output / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "state").write_text("1")
    seal(checkpoint, processes=1)
    wait(output)


def environment(output: Path) -> None:
    (output / "environment").write_text("".join(f"{k}={v}\n" for k, v in os.environ.items()))


def hang(output: Path) -> None:
    """Never reach a safe point."""
    with stop.deferred(partial(print, flush=True)):
        wait(output)


def answers(output: Path) -> None:
    rows = [
        {"prompt": "What is 1 plus 1?", "ppo": "=HYPERLINK(1)", "opponent": "Two."},
        {"prompt": "Hello?", "ppo": 'Hi, "you"\nthere <script>', "opponent": "-1"},
        {"prompt": "Why?", "ppo": "Because.", "opponent": "@SUM(A1)"},
    ]
    (output / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def torch_memory(_output: Path) -> None:
    kind = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
    raise kind("CUDA out of memory. Tried to allocate 20.00 GiB")


def hub(_output: Path) -> None:
    base = type("HfHubHTTPError", (OSError,), {"__module__": "huggingface_hub.errors"})
    raise type("RepositoryNotFoundError", (base,), {"__module__": "huggingface_hub.errors"})("404")


def wrapped_disk(_output: Path) -> None:
    raise RuntimeError("could not write") from OSError(28, "No space left on device", "weights")


def barrier(_output: Path) -> None:
    import torch

    torch.distributed.barrier()


def throw(error: BaseException) -> Callable[[Path], None]:
    def act(_output: Path) -> None:
        raise error

    return act


ACTS: dict[str, Callable[[Path], None]] = {
    "chatter": chatter,
    "environment": environment,
    "answers": answers,
    "wait": wait,
    "hang": hang,
    "wait_with_checkpoint": wait_with_checkpoint,
    "diverged": throw(DivergedError("the loss is NaN", hint="lower the learning rate")),
    "bug": throw(ValueError("a bug\x1b[2J[/b]")),
    "memory": throw(MemoryError()),
    "torch_memory": torch_memory,
    "disk": throw(OSError(28, "No space left on device", "weights")),
    "wrapped_disk": wrapped_disk,
    "hub": hub,
    "permission": throw(PermissionError(13, "Permission denied", "/somewhere")),
    "barrier": barrier,
    "die": lambda _output: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda _output: os.kill(os.getpid(), signal.SIGINT),
}


def stage(name: str, module_name: str) -> None:
    """Put a module in the place of a stage's."""

    def run(
        recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor
    ) -> StageOutcome:
        monitor.start(name, 2, "steps")
        for step in (1, 2):
            monitor.step(step, {"loss": 3.0 / step, "kl": float(step)})
        rank = os.environ.get("RANK", "0")
        for word in os.environ.get("TINY", "").split():
            what, _, where = word.partition("@")
            stage_name, _, act = what.partition(":")
            if stage_name == name and where in {"", rank}:
                ACTS[act](output)
        monitor.finish()
        if rank != "0":
            (output.parent / f"{name}-by-{rank}").write_text("")
            return StageOutcome({})
        metrics = to_json(METRICS[module_name])
        (output / "weights").write_text(f"{name} {recipe.seed}")
        (output / "config.json").write_text("{}")
        if name == "eval":
            (output / "metrics.json").write_text(json.dumps(metrics))
            (output / "samples.jsonl").write_text("")
        return StageOutcome(metrics)

    module = types.ModuleType(f"rlhfctl.stages.{module_name}.stage")
    module.__dict__["run"] = run
    sys.modules[module.__name__] = module


def install() -> None:
    """Put the tiny stages in the place of the real ones, in this process."""
    for replaced in ALL_STAGES:
        stage(replaced.name, replaced.module)


if __name__ == "__main__":
    install()
    from rlhfctl.__main__ import main

    main()
