"""A report as one JSON object, for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rlhfctl.report import verdict
from rlhfctl.stage_table import EVALUATION

if TYPE_CHECKING:
    from rlhfctl.report.sources import RunFacts


def report(facts: RunFacts) -> dict[str, Any]:
    """Return verdict, every stage's metrics, the held-out evaluations during PPO and the alarms.

    Metrics that are not finite are null, so that the object is JSON.
    """
    result = verdict.verdict_of(facts)
    value = {
        "run": facts.name,
        "verdict": {
            "level": result.level,
            "sentence": result.sentence,
            "cautions": list(result.cautions),
        },
        "stages": {
            stage: {
                "seconds": record.seconds,
                "seed": record.seed,
                "metrics": facts.evaluation if stage == EVALUATION.name else record.metrics,
            }
            for stage, record in facts.records.items()
        },
        "alarms": facts.over_optimisation.get("alarms") or [],
        "over_optimisation": facts.over_optimisation or None,
        "held_out": facts.held_out,
    }
    cleaned: dict[str, Any] = finite_only(value)
    return cleaned


def finite_only(value: Any) -> Any:
    """Return the value with None in place of every number that JSON cannot represent."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite_only(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(entry) for entry in value]
    return value
