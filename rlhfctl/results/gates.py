"""Gates: bounds on the evaluation's metrics, such as ``win_rate: ">=0.55"``."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import ErrorDetail, GateError
from rlhfctl.results.io import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rlhfctl.results.evaluation import EvaluationResult

_BOUND = re.compile(r"\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Gate:
    """One bound on one metric.

    Attributes:
        metric: Dotted name (`policies.ppo.gold`).
        relation: One of `>=`, `<=`, `>`, `<`.
        bound: Number that the metric is compared with.
    """

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        """Return the gate as written in a recipe."""
        return f"{self.metric} {self.relation} {self.bound:g}"


@dataclass(frozen=True)
class GateResult:
    """A gate with the metric's value; None where the evaluation lacks the metric."""

    gate: Gate
    value: float | None

    @property
    def passed(self) -> bool:
        """Return whether the metric is present and within the bound."""
        return self.value is not None and _HOLDS[self.gate.relation](self.value, self.gate.bound)


def parse_gates(gates: Mapping[str, str]) -> list[Gate]:
    """Read the recipe's `evaluation.gates`.

    Raises:
        ValueError: A bound cannot be parsed; lists every such gate.
    """
    parsed: list[Gate] = []
    errors: list[str] = []
    for metric, text in gates.items():
        match = _BOUND.fullmatch(text)
        if match:
            parsed.append(Gate(metric, match[1], float(match[2])))
        else:
            errors.append(
                f"{metric}: {text!r} is not a bound; write >=, <=, > or < and a number, such as "
                '">=0.55"'
            )
    if errors:
        raise ValueError("; ".join(errors))
    return parsed


def check_gates(gates: Sequence[Gate], result: EvaluationResult) -> list[GateResult]:
    """Compare each gate with an evaluation's metrics."""
    metrics = to_json(result)
    return [GateResult(gate, find_metric(metrics, gate.metric)) for gate in gates]


def require_gates(results: Sequence[GateResult]) -> None:
    """Raise if a gate failed.

    Raises:
        GateError: A gate failed; lists every failed gate with the metric's value.
    """
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(
            "\n".join(f"gate failed: {result.gate}, but {_describe(result)}" for result in failed),
            hint="the results and the report of the run are kept",
            details=tuple(
                ErrorDetail(
                    f"gate failed: {result.gate}, but {_describe(result)}",
                    f"evaluation.gates.{result.gate.metric}",
                    "the results and the report of the run are kept",
                )
                for result in failed
            ),
        )


def find_metric(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return a metric of an evaluation's JSON form by dotted name; None without it.

    The prefix `policies.ppo.` is optional. A value that is not a finite number counts as missing.
    """
    for full_name in (name, f"policies.ppo.{name}"):
        value = _lookup(metrics, full_name)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _lookup(metrics: Any, name: str) -> Any:
    """Return the value under a dotted name; keys, such as task names, may contain dots."""
    if not isinstance(metrics, dict):
        return None
    if name in metrics:
        return metrics[name]
    dots = [index for index, character in enumerate(name) if character == "."]
    nested = (_lookup(metrics.get(name[:index]), name[index + 1 :]) for index in dots)
    return next((value for value in nested if value is not None), None)


def _describe(result: GateResult) -> str:
    if result.value is None:
        return "the evaluation has no such metric"
    return f"it is {result.value:.4g}"
