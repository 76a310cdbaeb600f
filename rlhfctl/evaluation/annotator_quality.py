"""Everything that the labels of several annotators say about the annotators, in metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.annotations import Votes, read_votes
from rlhfctl.evaluation.agreement import krippendorff_alpha, label_counts, pairwise_agreement
from rlhfctl.evaluation.ceiling import above_ceiling, accuracy_ceiling
from rlhfctl.evaluation.dawid_skene import Reliability, dawid_skene, one_coin
from rlhfctl.evaluation.transitivity import expected_by_noise, intransitive_triples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from rlhfctl.data.row_counts import RowCounts

_FEWEST_ANNOTATORS = 3


def examine(votes: Votes, seed: int, accuracy: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return the metrics of a set of labels, ready for JSON; what cannot be known is left out.

    1. `items`, `labels`; `agreement` and `alpha` with `_low`, `_high` (bootstrap over prompts).
    2. `per_annotator`: `labels`, `agreement` with the others, and `accuracy` by Dawid-Skene where
       three annotators or more share items.
    3. `intransitive`: `share` with `_low`, `_high`, what noise alone gives (`expected`), `triples`.
    4. `ceiling` on a reward model's accuracy, with `_low`, `_high`, where there are two classes.
    5. `notes`: what cannot be known, and why; `warnings`: what looks wrong.

    Args:
        votes: The labels.
        seed: Of the bootstraps.
        accuracy: A reward model's `accuracy` and `accuracy_low` on single labels, if there is one.
    """
    counts = label_counts(votes.item, votes.label, len(votes.classes))
    metrics: dict[str, Any] = {
        "items": len(counts),
        "labels": len(votes.label),
        "per_annotator": _per_annotator(votes, counts),
        "notes": [],
        "warnings": [],
    }
    notes: list[str] = metrics["notes"]
    warnings: list[str] = metrics["warnings"]
    if votes.repeated:
        notes.append(
            f"{votes.repeated:,} further labels of an item by the same annotator are left out"
        )
    agreement = pairwise_agreement(counts, votes.cluster, seed)
    if agreement is None:
        notes.append(
            "every item has one label, so that agreement, reliability and the ceiling on accuracy "
            "cannot be known"
        )
    else:
        metrics |= agreement.metrics("agreement")
        alpha = krippendorff_alpha(counts, votes.cluster, seed)
        if alpha is None:
            notes.append("all labels are the same, so that alpha has no value")
        else:
            metrics |= alpha.metrics("alpha")
        _add_reliability(votes, metrics)
    circles = _circles(votes, counts, seed)
    if circles is not None:
        expected = None if agreement is None else expected_by_noise(agreement.estimate)
        metrics["intransitive"] = circles.share.metrics("share") | {
            "expected": expected,
            "triples": circles.triples,
        }
        if expected is not None and circles.share.low > expected:
            warnings.append(
                f"{circles.share.estimate:.1%} of triples run in a circle, where noise alone would "
                f"give {expected:.1%}: annotators may judge by several things at once"
            )
    if agreement is not None and len(votes.classes) == 2:
        ceiling = accuracy_ceiling(agreement)
        metrics["ceiling"] = ceiling.metrics("accuracy") | {"agreement": agreement.estimate}
        told = above_ceiling(accuracy, ceiling) if accuracy else None
        if told:
            warnings.append(told)
    return metrics


def examine_file(
    source: str, columns: Mapping[str, str], seed: int
) -> tuple[dict[str, Any], RowCounts]:
    """Return the metrics of a file's labels, and what became of its rows.

    Raises:
        DataError: The file is missing, damaged, of no form that `data.votes` documents, or empty.
        UsageError: A column is renamed that is none of ours.
        UnsafeError: The source is a script.
    """
    votes, report = read_votes(source, columns)
    return examine(votes, seed), report


def reliability(votes: Votes) -> Reliability:
    """Return Dawid-Skene's estimate: one accuracy an annotator for choices, else whole matrices."""
    if votes.pairs:
        return one_coin(votes.item, votes.annotator, votes.label)
    return dawid_skene(votes.item, votes.annotator, votes.label, len(votes.classes))


def _per_annotator(votes: Votes, counts: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
    item, label = np.asarray(votes.item), np.asarray(votes.label)
    others = counts.sum(axis=1)[item] - 1
    alike = counts[item, label] - 1
    metrics: dict[str, dict[str, Any]] = {}
    for number, name in sorted(enumerate(votes.annotators), key=lambda pair: pair[1]):
        theirs = np.asarray(votes.annotator) == number
        metrics[name] = {"labels": int(theirs.sum())}
        if others[theirs].sum():
            metrics[name]["agreement"] = float(alike[theirs].sum() / others[theirs].sum())
    return metrics


def _add_reliability(votes: Votes, metrics: dict[str, Any]) -> None:
    per_annotator = metrics["per_annotator"]
    overlapping = [name for name, known in per_annotator.items() if "agreement" in known]
    if len(overlapping) < _FEWEST_ANNOTATORS:
        metrics["notes"].append(
            "reliability needs three annotators with items in common"
            if votes.annotators
            else "labels carry no annotator, so that nobody's reliability can be known"
        )
        return
    accuracy = reliability(votes).accuracy
    for number, name in enumerate(votes.annotators):
        if name in overlapping:
            per_annotator[name]["accuracy"] = float(accuracy[number])


def _circles(votes: Votes, counts: NDArray[np.float64], seed: int) -> Any:
    if not votes.pairs:
        return None
    ids = [
        (cluster, str(first), str(second))
        for cluster, (_, first, second) in zip(votes.cluster, votes.pairs, strict=True)
    ]
    return intransitive_triples(ids, (counts[:, 0] / counts.sum(axis=1)).tolist(), seed)
