"""Reward model evaluation: accuracy, calibration, length bias and probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import (
    SHARE_COLUMNS,
    Cell,
    Column,
    Note,
    estimate_cell,
    estimate_cells,
    finite_ends,
    plots,
    share_cells,
    table,
)
from rlhfctl.report.curves import Line, Plot, interval_line
from rlhfctl.report.numbers import as_estimate, number, share, signed, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate, GroupAccuracy
    from rlhfctl.results.evaluation import (
        Calibration,
        HarmlessEditResult,
        HeldOutAccuracies,
        LengthBias,
        ProbeResult,
        SubsetAccuracies,
        TiesScore,
    )
    from rlhfctl.results.training import RewardModelResult

WORST_SLICES = 2
_CONFIDENCE = (
    "Confidence is sigmoid(margin), the predicted probability that the preferred response is the "
    "chosen one. The grey line is perfect calibration."
)
_COLUMNS = (Column("Accuracy"), *SHARE_COLUMNS, Column("Pairs", "number"))


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return accuracies, calibration, length bias and probes, as far as measured."""
    evaluation = facts.evaluation.reward_model if facts.evaluation else None
    held_out = evaluation.held_out if evaluation else None
    accuracies = table(
        "Share of held-out comparisons in which the chosen response scores higher; ties count 0.5.",
        _COLUMNS,
        _overall(facts.reward_model, held_out),
    ) + _slices("annotator, preference margin and source", _groups(facts.reward_model, held_out))
    if evaluation is None:
        return accuracies
    return (
        *accuracies,
        *(_calibration(held_out.calibration) if held_out else ()),
        *(_length(held_out.length) if held_out else ()),
        *_probes((held_out.probes if held_out else None) or {}),
        *_harmless_edits((held_out.harmless_edits if held_out else None) or {}),
        *(_subsets(evaluation.benchmark) if evaluation.benchmark else ()),
    )


def _overall(
    stage: RewardModelResult | None, held_out: HeldOutAccuracies | None
) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    if stage is not None:
        shares: tuple[tuple[str, Estimate | None, int | None], ...] = (
            ("Held-out accuracy", stage.accuracy, stage.pairs),
            ("Accuracy on gold labels", stage.gold_accuracy, stage.gold_pairs),
            (f"Baseline: {stage.length_baseline}", stage.length_baseline.accuracy, stage.pairs),
        )
        rows = [
            (label, *share_cells(estimate), "" if pairs is None else number(pairs))
            for label, estimate, pairs in shares
            if estimate is not None
        ]
    if held_out is None or (
        stage is not None and stage.accuracy.value == held_out.overall.accuracy.value
    ):
        return rows
    return [*rows, _accuracy("Held-out accuracy, evaluation", held_out.overall)]


def _groups(
    stage: RewardModelResult | None, held_out: HeldOutAccuracies | None
) -> list[tuple[str, GroupAccuracy]]:
    """Return each slice's label and accuracy."""
    per_annotator = (held_out and held_out.per_annotator) or (stage and stage.per_annotator) or {}
    groups = [(f"Annotator {name}", group) for name, group in sorted(per_annotator.items())]
    if held_out is not None:
        margins, sources = held_out.per_margin or {}, held_out.per_source or {}
        groups += [(f"Preference margin {name}", group) for name, group in margins.items()]
        groups += [(f"Source {name}", group) for name, group in sorted(sources.items())]
    return groups


def _slices(by: str, groups: Sequence[tuple[str, GroupAccuracy]]) -> tuple[Block, ...]:
    """Return the slices with the lowest accuracies, and all of them folded if there are more."""
    worst = sorted(groups, key=lambda group: group[1].accuracy.value)[:WORST_SLICES]
    rows = [_accuracy(label, group) for label, group in groups]
    if len(groups) <= WORST_SLICES:
        return table(f"Accuracy by {by}.", _COLUMNS, rows)
    return (
        *table(
            f"The {WORST_SLICES} slices with the lowest accuracy, of {len(groups)} by {by}.",
            _COLUMNS,
            [_accuracy(label, group) for label, group in worst],
        ),
        *table(f"Accuracy by {by}.", _COLUMNS, rows, folded=f"All {len(groups)} slices"),
    )


def _accuracy(label: str, group: GroupAccuracy) -> tuple[Cell, ...]:
    return (label, *share_cells(group.accuracy), number(group.pairs))


def _subsets(benchmark: SubsetAccuracies) -> tuple[Block, ...]:
    by = f"subset of {benchmark.subsets_file or 'the file of subsets'}"
    return (*_slices(by, list(benchmark.subsets.items())), *_ties(benchmark.ties))


def _ties(ties: TiesScore | None) -> tuple[Block, ...]:
    if ties is None:
        return ()
    parts = (
        ("RewardBench 2's score", ties.score),
        ("All right above all wrong responses", ties.accuracy),
        ("The same, prompts with one right response", ties.reference_accuracy),
        ("Right responses nearer to each other than to the wrong ones", ties.margin_accuracy),
        ("The same, and than at the reference prompt", ties.margin_accuracy_hard),
    )
    return table(
        f"Ties: {number(ties.prompts)} prompts with several equally right responses.",
        (Column("Ties"), Column("Share", "number")),
        [(label, share(value)) for label, value in parts],
    )


def _harmless_edits(edits: Mapping[str, HarmlessEditResult]) -> tuple[Block, ...]:
    return table(
        "Harmless edits: the share of held-out comparisons whose order of scores turns when one "
        "response is edited in a way that people would not mind (after reWordBench, Wu et al. 2025), "
        "and the mean absolute change of the normalised score.",
        (
            Column("Edit"),
            *SHARE_COLUMNS,
            Column("Change", "number"),
            Column("Comparisons", "number"),
        ),
        [
            (
                f"{name.capitalize()}: {edit.description}",
                *share_cells(edit.flipped),
                number(edit.change),
                number(edit.comparisons),
            )
            for name, edit in edits.items()
        ],
    )


def _calibration(calibration: Calibration) -> tuple[Block, ...]:
    points = [(one.predicted, one.observed) for one in calibration.bins]
    observed = interval_line("observed", points, "dots", colour=1)
    start = float(min((one.start for one in calibration.bins), default=0.0))
    diagonal = Line("", (start, 1.0), (start, 1.0), style="guide")
    diagram = (
        Plot(
            "Calibration (accuracy against confidence)",
            (diagonal, observed),
            "confidence",
            "accuracy, 95 % CI",
            whole_steps=False,
        )
        if observed
        else None
    )
    metrics: tuple[tuple[str, Estimate | float | None], ...] = (
        ("Expected calibration error", calibration.ece),
        ("Expected calibration error of a calibrated model", calibration.ece_if_calibrated),
        ("Brier score", calibration.brier),
        ("Negative log-likelihood, nats", calibration.nll),
        ("Fitted temperature", calibration.temperature),
        ("Expected calibration error at that temperature", calibration.ece_scaled),
    )
    return (
        *plots([diagram]),
        *((Note(_CONFIDENCE),) if diagram else ()),
        *table(
            "Expected calibration error by bins of confidence.",
            (Column("Calibration"), Column("Value", "number"), Column("95 % CI", "number")),
            [
                (label, *estimate_cells(as_estimate(metric)))
                for label, metric in metrics
                if metric is not None
            ],
            folded="Calibration metrics",
        ),
    )


def _length(length: LengthBias) -> tuple[Block, ...]:
    groups = (
        ("Baseline: always prefer the longer response", length.longer_wins),
        ("Baseline: always prefer the shorter response", length.shorter_wins),
        ("Reward model: pairs of about equal length", length.equal_length),
        ("Reward model: pairs whose longer response was chosen", length.longer_chosen),
        ("Reward model: pairs whose shorter response was chosen", length.shorter_chosen),
    )
    value, ends = estimate_cells(length.score_length_correlation, share)
    correlation = (
        (Note(f"Correlation of score with length within a prompt: {value} ({ends})."),)
        if value_of(length.score_length_correlation) is not None
        else ()
    )
    return (
        *table(
            "Length bias (Singhal et al. 2023): how much of the accuracy response length could "
            "explain.",
            _COLUMNS,
            [_accuracy(label, group) for label, group in groups if group is not None],
        ),
        *correlation,
    )


def _probes(probes: Mapping[str, ProbeResult]) -> tuple[Block, ...]:
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
                probe.description,
                estimate_cell(probe.change, signed),
                probe_side(probe),
                number(probe.responses),
            )
            for probe in probes.values()
        ],
    )


def probe_side(probe: ProbeResult) -> str:
    """Return `rises` or `falls` if the change is significant; else an empty string."""
    ends = finite_ends(probe.change)
    if ends is None:
        return ""
    low, _, high = ends
    if low > 0:
        return "rises"
    return "falls" if high < 0 else ""
