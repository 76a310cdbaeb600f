"""The plan as a table of 80 columns, and as JSON."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from rlhfctl.cli.resolve import resolve
from rlhfctl.console import Terminal, duration, safe
from rlhfctl.errors import UsageError
from rlhfctl.recipe.offline import go_offline
from rlhfctl.recipe.permissions import permit
from rlhfctl.run.log_capture import capture_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.plan.planning import Plan, StagePlan

_COLUMNS = ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "kv_cache")
_SHORT = {
    "gradients": "grads",
    "optimizer": "optim",
    "activations": "activ.",
    "kv_cache": "KV",
    "adapters": "adapt.",
}
_STYLES = {"fits": "green", "tight": "yellow", "no": "red"}


def show_plan(
    options: RunOptions, gpu: str | None, *, tflops: float | None, probe: bool, longest: bool
) -> None:
    """Print the plan of a recipe.

    Raises:
        UsageError: The GPU is unknown, a speed is not above 0, or a probe of another device is
            asked for.
        RlhfctlError: The recipe or the base's config cannot be used.
    """
    if probe and gpu is not None:
        raise UsageError(
            "--probe measures this machine, and --gpu names another device",
            "--gpu",
            "Leave one of them out.",
        )
    if tflops is not None and not 0.0 < tflops < float("inf"):
        raise UsageError(f"--tflops {tflops:g} is no speed", hint="Give a number above 0.")
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    resolved = resolve(options)
    recipe = resolved.loaded.recipe
    if options.offline:
        go_offline()
    permit(remote_code=options.allow_remote_code)
    with tempfile.TemporaryDirectory() as folder, capture_logs(Path(folder) / "log", "plan"):
        from rlhfctl.plan.planning import make_plan

        plan = make_plan(recipe, gpu, tflops=tflops, probe=probe, longest=longest)
    if options.json:
        path = str(resolved.choice.path)
        terminal.write_json({"path": path} | as_json(plan))
        return
    terminal.result(*parts(plan, recipe.model.name_or_path))


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values."""
    stages = [
        {
            "stage": stage.stage,
            "verdict": stage.verdict,
            "peak_bytes": stage.peak.split.total,
            "peak_in": stage.peak.name,
            "bytes": stage.peak.split.bytes,
            "work": None if stage.work is None else asdict(stage.work),
            "suggestions": [asdict(suggestion) for suggestion in stage.suggestions],
            "measured": None if stage.measured is None else asdict(stage.measured),
        }
        for stage in plan.stages
    ]
    longest = None if plan.longest is None else {str(k): v for k, v in plan.longest.items()}
    return {
        "device": asdict(plan.target) | {"usable": plan.target.usable},
        "parameters": plan.parameters,
        "stages": stages,
        "longest_response": longest,
        "server": None if plan.server is None else asdict(plan.server),
    }


def parts(plan: Plan, model: str) -> Iterator[RenderableType]:
    """Yield the parts of a plan for people."""
    target = plan.target
    yield safe(
        f"{model}, {_count(plan.parameters)} weights, on {target.name}: "
        f"{_bytes(target.usable)} usable of {_bytes(target.memory)}"
    )
    yield ""
    yield safe("Peak memory", "bold")
    yield _memory(plan)
    yield safe("dpo is a command of its own, which `rlhfctl run` leaves out", "dim")
    yield from _server(plan)
    yield ""
    yield safe("Work", "bold")
    yield _work(plan)
    for stage in plan.stages:
        yield from _advice(stage)
    if any(stage.measured for stage in plan.stages):
        yield ""
        yield safe("Probe: two real steps here at the longest length", "bold")
        yield _probe(plan)
    if plan.longest is not None:
        yield ""
        yield safe("PPO's longest response, with reward model and critic", "bold")
        for size, tokens in plan.longest.items():
            yield safe(f"  {size} GB  {f'{tokens:,} tokens' if tokens else 'none fits'}")


def _server(plan: Plan) -> Iterator[RenderableType]:
    """Yield what the server of vLLM takes from PPO's memory."""
    server = plan.server
    if server is None:
        return
    left = _bytes(max(0, plan.target.usable - server.asleep))
    taken = f"{_bytes(server.memory)} ({_bytes(server.weights)} of weights)"
    yield ""
    yield safe("ppo shares the device with the server of vLLM, a process of its own.")
    if server.asleep == server.memory:
        yield safe(f"The server takes {taken} and leaves {left}.")
    else:
        yield safe(f"The server takes {taken} while it samples.")
        yield safe(f"Between rollouts its weights are in main memory, and ppo has {left}.")
    if server.cache <= 0:
        yield safe(
            "Its share does not hold its weights: raise ppo.vllm.gpu_memory_utilization.", "red"
        )


def _memory(plan: Plan) -> Table:
    shown = [name for name in _COLUMNS if any(s.peak.split.bytes[name] for s in plan.stages)]
    table = _table()
    table.add_column("", no_wrap=True)
    for name in ("peak", *(_SHORT.get(name, name) for name in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for stage in plan.stages:
        split = stage.peak.split
        table.add_row(
            *(stage.stage, _bytes(split.total)),
            *(_bytes(split.bytes[name]) for name in shown),
            safe(stage.verdict, _STYLES[stage.verdict]),
        )
    return table


def _work(plan: Plan) -> Table:
    table = _table()
    table.add_column("", no_wrap=True)
    for name in ("steps", "tokens, at most", "time, at most", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("peak in", no_wrap=True)
    for stage in plan.stages:
        work = stage.work
        table.add_row(
            stage.stage,
            "-" if work is None or work.steps is None else f"{work.steps:,}",
            "-" if work is None or work.tokens is None else _count(work.tokens),
            "-" if work is None or work.seconds is None else duration(work.seconds),
            "-" if work is None else _bytes(work.disk_bytes),
            stage.peak.name,
        )
    return table


def _advice(stage: StagePlan) -> Iterator[RenderableType]:
    if stage.verdict == "fits":
        return
    yield ""
    state = "does not fit" if stage.verdict == "no" else "is tight"
    yield safe(f"{stage.title} {state}. Computed for each of these:", "bold")
    for suggestion in stage.suggestions:
        options = [f"--set {key}={_value(value)}" for key, value in suggestion.settings.items()]
        figure = f"{_bytes(suggestion.peak):>9} {suggestion.verdict:<5}"
        yield safe(f"  {figure} {options[0]}", _STYLES[suggestion.verdict])
        for option in options[1:]:
            yield safe(f"{'':18}{option}", _STYLES[suggestion.verdict])
    if stage.stage == "eval":
        return
    yield safe("  auto_batch: true halves the rows per pass where memory runs out.")


def _probe(plan: Plan) -> Table:
    table = _table()
    table.add_column("", no_wrap=True)
    for name in ("measured", "estimated", "tokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in plan.stages:
        measured = stage.measured
        if measured is not None:
            speed = measured.tokens / measured.seconds
            table.add_row(
                *(stage.stage, _bytes(measured.peak), _bytes(stage.peak.split.total)),
                f"{speed:,.0f}",
            )
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _count(number: float) -> str:
    for unit, divisor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= divisor:
            return f"{number / divisor:.1f}{unit}"
    return f"{number:.0f}"
