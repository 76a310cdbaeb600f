"""Reward model evaluation: accuracy, calibration, length bias and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.report.blocks import (
    SHARE_COLUMNS,
    Cell,
    Column,
    Note,
    estimate,
    estimate_cells,
    group,
    objects,
    plots,
    share_cells,
    table,
    warnings,
)
from rlhfctl.report.curves import Line, Plot, interval_line
from rlhfctl.report.numbers import finite, number, share, signed
from rlhfctl.stage_table import REWARD_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts

_STAGE = (
    ("Held-out accuracy", "accuracy", "pairs"),
    ("Accuracy on gold labels", "gold_accuracy", "gold_pairs"),
    ("Baseline: always prefer the longer response", "length_accuracy", "pairs"),
)
_GROUPS = (
    ("per_annotator", "Annotator "),
    ("per_margin", "Preference margin "),
    ("per_source", "Source "),
)
_LENGTH = (
    ("longer_wins", "Baseline: always prefer the longer response"),
    ("shorter_wins", "Baseline: always prefer the shorter response"),
    ("equal_length", "Reward model: pairs of about equal length"),
    ("longer_chosen", "Reward model: pairs whose longer response was chosen"),
    ("shorter_chosen", "Reward model: pairs whose shorter response was chosen"),
)
_CALIBRATION = (
    ("ece", "Expected calibration error"),
    ("ece_if_calibrated", "Expected calibration error of a calibrated model"),
    ("brier", "Brier score"),
    ("nll", "Negative log-likelihood, nats"),
    ("temperature", "Fitted temperature"),
    ("ece_scaled", "Expected calibration error at that temperature"),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return accuracies, calibration, length bias and probes, as far as measured."""
    stage = facts.stage_metrics(REWARD_MODEL)
    value = facts.evaluation.get("reward_model")
    evaluation = value if isinstance(value, dict) else {}
    columns = (Column("Accuracy"), *SHARE_COLUMNS, Column("Pairs", "number"))
    accuracies = table(
        "Share of held-out comparisons in which the chosen response scores higher; ties count 0.5.",
        columns,
        [*_overall(stage, evaluation), *_groups(stage, evaluation)],
    )
    subsets = table(
        f"Accuracy on {evaluation.get('subsets_file', 'the file of subsets')}, by subset.",
        columns,
        _accuracies("", objects(evaluation.get("subsets"))),
    )
    return (
        *warnings(evaluation.get("warnings")),
        *accuracies,
        *_calibration(evaluation.get("calibration")),
        *_length(evaluation.get("length"), columns),
        *_probes(objects(evaluation.get("probes"))),
        *subsets,
    )


def _overall(stage: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = [
        (label, *share_cells(stage, name), number(stage.get(pairs)) if pairs in stage else "")
        for label, name, pairs in _STAGE
        if name in stage
    ]
    overall = objects({"": evaluation.get("overall")})
    if rows and overall.get("", {}).get("accuracy") == stage.get("accuracy"):
        return rows
    return [*rows, *_accuracies("Held-out accuracy, evaluation", overall)]


def _groups(stage: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterable[tuple[Cell, ...]]:
    for name, label in _GROUPS:
        groups = objects(evaluation.get(name)) or objects(stage.get(name))
        yield from _accuracies(
            label, groups if name == "per_margin" else dict(sorted(groups.items()))
        )


def _accuracies(label: str, groups: Mapping[str, Mapping[str, Any]]) -> list[tuple[Cell, ...]]:
    return [
        (
            f"{label}{name}",
            *share_cells(group(metrics), "accuracy"),
            number(metrics["pairs"]) if "pairs" in metrics else "",
        )
        for name, metrics in groups.items()
    ]


def _calibration(value: Any) -> tuple[Block, ...]:
    calibration = value if isinstance(value, dict) else {}
    bins = calibration.get("bins")
    rows = [one for one in bins if isinstance(one, dict)] if isinstance(bins, list) else []
    observed = interval_line("observed", rows, "predicted", "observed", "dots", colour=1)
    start = min(
        (edge for row in rows if (edge := finite(row.get("from"))) is not None), default=0.0
    )
    diagonal = Line("", (start, 1.0), (start, 1.0), style="guide")
    diagram = (
        Plot("Calibration (accuracy against confidence)", (diagonal, observed), whole_steps=False)
        if observed
        else None
    )
    metrics = [
        (label, *estimate_cells(calibration, name))
        for name, label in _CALIBRATION
        if name in calibration
    ]
    return (
        *plots([diagram]),
        *table(
            "Confidence is sigmoid(margin), the predicted probability that the preferred response "
            "is the chosen one. The grey line is perfect calibration.",
            (Column("Calibration"), Column("Value", "number"), Column("95 % CI", "number")),
            metrics,
        ),
    )


def _length(entry: Any, columns: tuple[Column, ...]) -> tuple[Block, ...]:
    length = entry if isinstance(entry, dict) else {}
    rows = [
        row
        for name, label in _LENGTH
        for row in _accuracies(label, objects({"": length.get(name)}))
    ]
    value, ends = estimate_cells(length, "score_length_correlation", share)
    correlation = (
        (Note(f"Correlation of score with length within a prompt: {value} ({ends})."),)
        if finite(length.get("score_length_correlation")) is not None
        else ()
    )
    return (
        *table(
            "Length bias (Singhal et al. 2023): how much of the accuracy response length could "
            "explain.",
            columns,
            rows,
        ),
        *correlation,
    )


def _probes(probes: Mapping[str, Mapping[str, Any]]) -> tuple[Block, ...]:
    return table(
        "Probes: the change of the normalised score (in standard deviations of SFT's) when a "
        "held-out response is deliberately degraded. PPO can exploit a probe that raises the "
        "score.",
        (
            Column("Probe"),
            Column("Change", "number"),
            Column("Score"),
            Column("Responses", "number"),
        ),
        [
            (
                str(probe.get("description") or name.replace("_", " ")),
                estimate(probe, "change", signed),
                probe_side(probe),
                number(probe.get("responses")),
            )
            for name, probe in probes.items()
        ],
    )


def probe_side(probe: Mapping[str, Any]) -> str:
    """Return `rises` or `falls` if the change is significant; else an empty string."""
    low, high = (finite(probe.get(f"change_{end}")) for end in ("low", "high"))
    if low is not None and low > 0:
        return "rises"
    return "falls" if high is not None and high < 0 else ""
