"""Every metric name with its definition; `python -m rlhfctl.results.names` prints the reference."""

from __future__ import annotations

import difflib
import re
import sys
from typing import TYPE_CHECKING

from rlhfctl.results import evaluation_metrics, training_metrics
from rlhfctl.results.metric import POLICIES, Metric, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

METRICS: dict[Source, tuple[Metric, ...]] = training_metrics.METRICS | evaluation_metrics.METRICS
_SHORT_PREFIX = "policies.ppo."

_INTRODUCTION = """\
# Metrics

Every metric has one definition. Sums and means over tokens cover response tokens only; the stop
token belongs to the response. Results of a stage are also in `manifest.json`. Log lines have `step`
and `time` besides their metrics.

A name with an interval has `NAME_low` and `NAME_high` (95 %): a bootstrap over prompts unless the
definition names another. The bounds of an accuracy in a group are `low` and `high`. Parts in upper
case are names that the run chooses; `POLICY` is `sft` or `ppo`. `[]` marks a list.

`evaluation.gates` accepts the names under [evaluation: result](#evaluation-result-evalmetricsjson)
that hold no list. `policies.ppo.` may be left out.

For PPO, r = log pi(y_t) - log pi_ref(y_t) under the policy that sampled the rollout.
"""


def is_known(source: Source, name: str) -> bool:
    """Return whether a concrete metric name is defined for a source."""
    return any(metric.matches(name) for metric in METRICS[source])


def check_gate_names(gates: Mapping[str, str]) -> None:
    """Refuse gates on metrics that the evaluation cannot have.

    Raises:
        ValueError: Some names are unknown; names each with the closest known one.
    """
    errors = [
        f"{name} is not a metric of the evaluation{_suggestion(name)}"
        for name in gates
        if not any(is_known(Source.EVAL, full) for full in (name, _SHORT_PREFIX + name))
    ]
    if errors:
        raise ValueError("; ".join(errors))


def reference_page() -> str:
    """Return the reference of all metrics as Markdown."""
    lines = [_INTRODUCTION]
    for source, metrics in METRICS.items():
        lines += [
            f"## {source.value}",
            "",
            "| metric | definition | unit | better |",
            "|---|---|---|---|",
        ]
        lines += [_row(metric) for metric in metrics]
        lines.append("")
    return "\n".join(lines)


def _row(metric: Metric) -> str:
    interval = ", with interval" if metric.bounds else ""
    meaning = (metric.meaning + interval).replace("|", "\\|")
    return f"| `{metric.name}` | {meaning} | {metric.unit} | {metric.better} |"


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, _candidates(name), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else "; docs/reference/metrics.md lists them"


def _candidates(name: str) -> Iterator[str]:
    """Yield names that gates accept, with their placeholders filled in from a name of equal depth."""
    parts = name.split(".")
    for metric in METRICS[Source.EVAL]:
        if "[]" in metric.name:
            continue
        for pattern in metric.names:
            shapes = [pattern.replace("POLICY", policy).split(".") for policy in POLICIES]
            if pattern.startswith("policies.POLICY."):
                shapes.append(pattern.split(".")[2:])
            for shape in shapes:
                filled = [
                    parts[index] if index < len(parts) and re.fullmatch("[A-Z_]+", part) else part
                    for index, part in enumerate(shape)
                ]
                yield ".".join(filled)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
