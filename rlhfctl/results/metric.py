"""Definition of one metric: name, unit, direction and source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

HIGHER = "higher"
LOWER = "lower"

POLICIES = ("sft", "ppo")


class Source(Enum):
    """Files in which metrics are recorded, each with its title in the reference."""

    SFT_LOG = "SFT: training log (`logs/sft.jsonl`)"
    SFT = "SFT: result (`manifest.json`)"
    RM_LOG = "Reward model: training log (`logs/rm.jsonl`)"
    RM = "Reward model: result (`rm/metrics.json`)"
    PPO_LOG = "PPO: training log (`logs/ppo.jsonl`, one line per rollout)"
    PPO = "PPO: result (`manifest.json`)"
    HELD_OUT = "PPO: held-out evaluations (`ppo/held_out.jsonl`, one line per evaluation)"
    OVER_OPTIMISATION = "PPO: over-optimisation (`ppo/over_optimisation.json`)"
    DPO_LOG = "DPO: training log (`logs/dpo.jsonl`)"
    DPO = "DPO: result (`manifest.json`)"
    EVAL_LOG = "Evaluation: progress log (`logs/eval.jsonl`)"
    EVAL = "Evaluation: result (`eval/metrics.json`)"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Dotted name. A part in upper case stands for a name that the run chooses (`POLICY` for
            sft or ppo); `[]` follows a list.
        meaning: Definition or formula.
        unit: Unit; empty for shares and other numbers without one.
        better: `higher`, `lower`, or empty where neither is better in itself.
        bounds: Names of the 95 % interval's ends; empty without an interval.
    """

    name: str
    meaning: str
    unit: str = ""
    better: str = ""
    bounds: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The metric's name and those of its interval's ends."""
        return (self.name, *self.bounds)

    def matches(self, name: str) -> bool:
        """Return whether a concrete name is the metric or an end of its interval."""
        return any(re.fullmatch(_pattern(own), name) for own in self.names)


def _pattern(name: str) -> str:
    def placeholder(match: re.Match[str]) -> str:
        return f"(?:{'|'.join(POLICIES)})" if match[0] == "POLICY" else r".+"

    return re.sub(
        r"[A-Z]{2,}(?:_[A-Z]+)*", placeholder, name.replace(".", r"\.").replace("[]", r"\[\]")
    )


def estimate(name: str, meaning: str, unit: str = "", better: str = "") -> Metric:
    """Return a metric with an interval, `NAME_low` and `NAME_high`."""
    return Metric(name, meaning, unit, better, (f"{name}_low", f"{name}_high"))


def group_accuracy(name: str, meaning: str, better: str = HIGHER) -> tuple[Metric, Metric]:
    """Return the accuracy on a group of comparisons, with its interval, and the number of pairs."""
    bounds = (f"{name}.low", f"{name}.high")
    return (
        Metric(f"{name}.accuracy", f"{meaning}; ties count one half", "", better, bounds),
        Metric(f"{name}.pairs", "comparisons behind that accuracy", "pairs"),
    )
