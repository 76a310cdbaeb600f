"""Gates: bounds that an evaluation's metrics must keep, such as ``win_rate: ">=0.55"``."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import GateError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_BOUND = re.compile(r"\s*(>=|<=|>|<)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Gate:
    """One bound on one figure.

    Attributes:
        metric: Its name; dots lead into nested metrics (`policies.ppo.gold`).
        relation: One of `>=`, `<=`, `>`, `<`.
        bound: The number on its other side.
    """

    metric: str
    relation: str
    bound: float

    def __str__(self) -> str:
        """Return the gate as a recipe has it."""
        return f"{self.metric} {self.relation} {self.bound:g}"


@dataclass(frozen=True)
class GateResult:
    """A gate and the figure it met; None where the evaluation has no such figure."""

    gate: Gate
    value: float | None

    @property
    def passed(self) -> bool:
        """Whether the figure is there and keeps the bound."""
        return self.value is not None and _HOLDS[self.gate.relation](self.value, self.gate.bound)


def parse_gates(gates: Mapping[str, str]) -> list[Gate]:
    """Read the recipe's `evaluation.gates`.

    Raises:
        RecipeError: Some are no bounds; names each.
    """
    parsed: list[Gate] = []
    faults: list[str] = []
    for metric, text in gates.items():
        match = _BOUND.fullmatch(text)
        if match:
            parsed.append(Gate(metric, match[1], float(match[2])))
        else:
            faults.append(
                f"evaluation.gates.{metric}: {text!r} is no bound; "
                'write >=, <=, > or < and a number, such as ">=0.55"'
            )
    if faults:
        raise RecipeError("\n".join(faults))
    return parsed


def check_gates(gates: Sequence[Gate], metrics: Mapping[str, Any]) -> list[GateResult]:
    """Hold each gate against an evaluation's metrics; context the results is the caller's."""
    return [GateResult(gate, find_figure(metrics, gate.metric)) for gate in gates]


def require_gates(results: Sequence[GateResult]) -> None:
    """Refuse metrics that miss a gate.

    Raises:
        GateError: At least one gate failed; names each with its figure.
    """
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(
            "\n".join(f"gate failed: {result.gate}, but {_found(result)}" for result in failed),
            hint="the run's results and its report are kept",
        )


def find_figure(metrics: Mapping[str, Any], name: str) -> float | None:
    """Return a figure by dotted name; a name without dots may be one of the PPO policy's.

    None when there is none, or when it is not a finite number.
    """
    for path in (name.split("."), ["policies", "ppo", *name.split(".")]):
        value: Any = metrics
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None


def _found(result: GateResult) -> str:
    if result.value is None:
        return "the evaluation has no such figure"
    return f"it is {result.value:.4g}"
