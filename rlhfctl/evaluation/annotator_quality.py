"""Annotator metrics from repeated labels: agreement, reliability and intransitivity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.annotations import Votes, read_votes
from rlhfctl.evaluation.agreement import krippendorff_alpha, label_counts, pairwise_agreement
from rlhfctl.evaluation.ceiling import above_ceiling, accuracy_ceiling
from rlhfctl.evaluation.dawid_skene import Reliability, dawid_skene, one_coin
from rlhfctl.evaluation.transitivity import expected_by_noise, intransitive_triples
from rlhfctl.results.evaluation import AnnotatorMetrics, AnnotatorsResult, Ceiling, Intransitivity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.evaluation.intervals import Interval
    from rlhfctl.results.estimate import Estimate

_FEWEST_ANNOTATORS = 3


def examine(votes: Votes, seed: int, accuracy: Estimate | None = None) -> AnnotatorsResult:
    """Return agreement and reliability of a set of labels; fields are None without enough labels.

    Args:
        votes: The labels.
        seed: Seed of the bootstraps.
        accuracy: Accuracy of a reward model on single labels, if there is one.
    """
    counts = label_counts(votes.item, votes.label, len(votes.classes))
    agreement = pairwise_agreement(counts, votes.cluster, seed)
    alpha = None if agreement is None else krippendorff_alpha(counts, votes.cluster, seed)
    per_annotator = _per_annotator(votes, counts)
    notes: list[str] = []
    warnings: list[str] = []
    if votes.repeated:
        notes.append(f"{votes.repeated:,} repeated labels of an item by one annotator left out")
    if agreement is None:
        notes.append("Annotator agreement needs several labels per item; skipped")
    else:
        if alpha is None:
            notes.append("Krippendorff's alpha is undefined: all labels are equal")
        per_annotator = _with_reliability(votes, per_annotator, notes)
    intransitive = _intransitivity(votes, counts, agreement, seed)
    if (
        intransitive is not None
        and intransitive.expected is not None
        and intransitive.share.low is not None
        and intransitive.share.low > intransitive.expected
    ):
        warnings.append(
            f"{intransitive.share.value:.1%} of triples are intransitive; label noise alone would"
            f" give {intransitive.expected:.1%}. Annotators may judge by several criteria"
        )
    ceiling = None
    if agreement is not None and len(votes.classes) == 2:
        bound = accuracy_ceiling(agreement)
        ceiling = Ceiling(bound, agreement.value)
        message = above_ceiling(accuracy, bound) if accuracy else None
        if message:
            warnings.append(message)
    return AnnotatorsResult(
        items=len(counts),
        labels=len(votes.label),
        per_annotator=per_annotator,
        notes=notes,
        warnings=warnings,
        agreement=agreement,
        alpha=alpha,
        intransitive=intransitive,
        ceiling=ceiling,
    )


def examine_file(
    source: str, columns: Mapping[str, str], seed: int
) -> tuple[AnnotatorsResult, RowCounts]:
    """Return the metrics of a file's labels and its row counts.

    Raises:
        DataError: The file is missing, damaged, empty, or not in a documented format.
        UsageError: A renamed column does not exist.
        UnsafeError: The source is a script.
    """
    votes, report = read_votes(source, columns)
    return examine(votes, seed), report


def reliability(votes: Votes) -> Reliability:
    """Return Dawid-Skene's estimate: one accuracy per annotator for choices, else full matrices."""
    if votes.pairs:
        return one_coin(votes.item, votes.annotator, votes.label)
    return dawid_skene(votes.item, votes.annotator, votes.label, len(votes.classes))


def _per_annotator(votes: Votes, counts: NDArray[np.float64]) -> dict[str, AnnotatorMetrics]:
    item, label = np.asarray(votes.item), np.asarray(votes.label)
    others = counts.sum(axis=1)[item] - 1
    alike = counts[item, label] - 1
    metrics: dict[str, AnnotatorMetrics] = {}
    for number, name in sorted(enumerate(votes.annotators), key=lambda pair: pair[1]):
        theirs = np.asarray(votes.annotator) == number
        agreement = None
        if others[theirs].sum():
            agreement = float(alike[theirs].sum() / others[theirs].sum())
        metrics[name] = AnnotatorMetrics(int(theirs.sum()), agreement)
    return metrics


def _with_reliability(
    votes: Votes, per_annotator: dict[str, AnnotatorMetrics], notes: list[str]
) -> dict[str, AnnotatorMetrics]:
    """Return the metrics with estimated accuracies; adds a note where there are too few labels."""
    overlapping = [name for name, own in per_annotator.items() if own.agreement is not None]
    if len(overlapping) < _FEWEST_ANNOTATORS:
        notes.append(
            "Annotator reliability needs three annotators with items in common; skipped"
            if votes.annotators
            else "Annotator reliability needs labels with annotators; skipped"
        )
        return per_annotator
    accuracy = reliability(votes).accuracy
    return per_annotator | {
        name: replace(per_annotator[name], accuracy=float(accuracy[votes.annotators.index(name)]))
        for name in overlapping
    }


def _intransitivity(
    votes: Votes, counts: NDArray[np.float64], agreement: Interval | None, seed: int
) -> Intransitivity | None:
    if not votes.pairs:
        return None
    ids = [
        (cluster, str(first), str(second))
        for cluster, (_, first, second) in zip(votes.cluster, votes.pairs, strict=True)
    ]
    first_shares = (counts[:, 0] / counts.sum(axis=1)).tolist()
    circles = intransitive_triples(ids, first_shares, seed)
    if circles is None:
        return None
    expected = None if agreement is None else expected_by_noise(agreement.value)
    return Intransitivity(circles.share, circles.triples, expected)
