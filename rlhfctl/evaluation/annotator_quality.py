"""Annotator metrics from repeated labels: agreement, reliability and intransitivity."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.data.annotations import FIRST_SECOND, Votes, read_votes
from rlhfctl.evaluation.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    label_counts,
    majority_counts,
    pairwise_agreement,
)
from rlhfctl.evaluation.ceiling import above_ceiling, accuracy_ceiling
from rlhfctl.evaluation.dawid_skene import Reliability, dawid_skene, one_coin
from rlhfctl.evaluation.sides import Sides, sides_of
from rlhfctl.evaluation.transitivity import (
    agreement_with_ties_halved,
    expected_by_noise,
    intransitive_triples,
)
from rlhfctl.results.evaluation import (
    AnnotatorMetrics,
    AnnotatorsResult,
    Ceiling,
    CohenKappa,
    Intransitivity,
    Majority,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.results.estimate import Estimate

_FEWEST_ANNOTATORS = 3
_FEWEST_SHARED = 2
_MOST_PAIRS = 100
"""Pairs of annotators with a kappa of their own, those with the most items in common."""


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
        notes.append("agreement is not measured: no item has two labels")
    else:
        if alpha is None:
            notes.append("Alpha and kappa are undefined: all labels are equal")
        per_annotator = _with_reliability(votes, per_annotator, notes)
    cohen = _cohen(votes, seed, notes)
    sides = sides_of(votes.classes)
    intransitive = None if sides is None else _intransitivity(votes, counts, sides, seed)
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
    strict = (
        None if sides is None else pairwise_agreement(sides.strict(counts), votes.cluster, seed)
    )
    if strict is not None:
        bound = accuracy_ceiling(strict)
        ceiling = Ceiling(bound, strict.value)
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
        fleiss=None if agreement is None else fleiss_kappa(counts, votes.cluster, seed),
        cohen=cohen or None,
        majority=None if agreement is None else _majority(votes, counts),
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
    if tuple(votes.classes) == FIRST_SECOND:
        return one_coin(votes.item, votes.annotator, votes.label)
    return dawid_skene(votes.item, votes.annotator, votes.label, len(votes.classes))


def _majority(votes: Votes, counts: NDArray[np.float64]) -> Majority:
    winners, undecided = majority_counts(counts)
    return Majority(dict(zip(votes.classes, winners.tolist(), strict=True)), undecided)


def _cohen(votes: Votes, seed: int, notes: list[str]) -> list[CohenKappa]:
    """Return Cohen's kappa of each pair of annotators with at least two items in common."""
    if not votes.annotators:
        return []
    item_labels: list[dict[int, int]] = [{} for _ in votes.cluster]
    for item, annotator, label in zip(votes.item, votes.annotator, votes.label, strict=True):
        item_labels[item][annotator] = label
    common: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for item, labels in enumerate(item_labels):
        for pair in combinations(sorted(labels, key=votes.annotators.__getitem__), 2):
            common[pair].append(item)
    shared = {pair: items for pair, items in common.items() if len(items) >= _FEWEST_SHARED}
    names = {(one, two): (votes.annotators[one], votes.annotators[two]) for one, two in shared}
    pairs = sorted(shared, key=lambda pair: (-len(shared[pair]), names[pair]))[:_MOST_PAIRS]
    if len(shared) > len(pairs):
        notes.append(
            f"Cohen's kappa is given for {len(pairs)} of {len(shared):,} pairs of annotators, those "
            "with the most items in common"
        )
    kappas = []
    for pair in pairs:
        items = shared[pair]
        first, second = ([item_labels[item][one] for item in items] for one in pair)
        clusters = [votes.cluster[item] for item in items]
        kappa = cohen_kappa(first, second, len(votes.classes), clusters, seed)
        kappas.append(CohenKappa(*names[pair], len(items), kappa))
    return kappas


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
    votes: Votes, counts: NDArray[np.float64], sides: Sides, seed: int
) -> Intransitivity | None:
    if not votes.pairs:
        return None
    ids = [
        (cluster, str(first), str(second))
        for cluster, (_, first, second) in zip(votes.cluster, votes.pairs, strict=True)
    ]
    circles = intransitive_triples(ids, sides.first_shares(counts).tolist(), seed)
    if circles is None:
        return None
    agreement = agreement_with_ties_halved(sides.strict(counts), counts.sum(axis=1))
    expected = None if agreement is None else expected_by_noise(agreement)
    return Intransitivity(circles.share, circles.triples, expected)
