"""A report as one JSON object, for programs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rlhfctl.report import verdict
from rlhfctl.results.io import to_json
from rlhfctl.stage_table import DPO, EVALUATION, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.training import HeldOutLine


def report(facts: RunFacts) -> dict[str, Any]:
    """Return verdict, every stage's metrics, the held-out evaluations during PPO and the alarms.

    Metrics that are not finite, or that cannot be read, are null.
    """
    result = verdict.verdict_of(facts)
    results = (
        (SFT, facts.sft),
        (REWARD_MODEL, facts.reward_model),
        (PPO, facts.ppo),
        (DPO, facts.dpo),
        (EVALUATION, facts.evaluation),
    )
    metrics = {stage.name: None if one is None else to_json(one) for stage, one in results}
    summary = facts.over_optimisation
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
                "metrics": metrics[stage],
            }
            for stage, record in facts.records.items()
        },
        "alarms": [to_json(alarm) for alarm in summary.alarms] if summary else [],
        "alarm_acts": [to_json(act) for act in (summary.acts if summary else None) or ()],
        "over_optimisation": to_json(summary) if summary else None,
        "held_out": [_without_prompts(line) for line in facts.held_out],
    }
    cleaned: dict[str, Any] = finite_only(value)
    return cleaned


def _without_prompts(line: HeldOutLine) -> dict[str, Any]:
    """Return a held-out evaluation without the values of each prompt."""
    json = to_json(line)
    del json["each"]
    return json


def finite_only(value: Any) -> Any:
    """Return the value with None in place of every number that JSON cannot represent."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite_only(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_only(entry) for entry in value]
    return value
