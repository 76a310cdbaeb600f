"""Annotator reliability and true labels estimated by EM without ground truth.

Dawid & Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LEAST = 1e-10


@dataclass(frozen=True)
class Reliability:
    """Result of EM.

    Attributes:
        prior: [classes] share of items per true class.
        confusion: [annotators, classes, classes] probability of a label (last axis) given the true class.
        posterior: [items, classes] probability of each true class.
        iterations: Number of EM steps.
    """

    prior: NDArray[np.float64]
    confusion: NDArray[np.float64]
    posterior: NDArray[np.float64]
    iterations: int

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """[annotators] probability of the true label, averaged over the class prior."""
        right = np.diagonal(self.confusion, axis1=1, axis2=2)
        return right @ self.prior


def dawid_skene(
    item: ArrayLike,
    annotator: ArrayLike,
    label: ArrayLike,
    classes: int,
    tolerance: float = 1e-9,
    most: int = 5000,
) -> Reliability:
    """Estimate every annotator's confusion matrix and every item's true class.

    EM from the vote shares (Dawid & Skene 1979, equations 2.3 to 2.5, without a prior).

    Args:
        item: [labels] item index.
        annotator: [labels] annotator index; an annotator may label an item repeatedly.
        label: [labels] class index.
        classes: Number of classes.
        tolerance: Largest change of a posterior at convergence.
        most: Maximum number of steps.

    Raises:
        ValueError: If there are no labels, or the three differ in length.
    """
    items, annotators, labels = _checked(item, annotator, label)
    counts = np.zeros((annotators.max() + 1, classes, items.max() + 1))
    np.add.at(counts, (annotators, labels, items), 1.0)

    def maximise(posterior: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        joint = np.einsum("ajn,nk->akj", counts, posterior)
        total = joint.sum(axis=2, keepdims=True)
        even = np.full_like(joint, 1.0 / classes)
        return posterior.mean(axis=0), np.divide(joint, total, out=even, where=total > 0)

    posterior = _vote_shares(items, labels, classes)
    steps = 0
    for steps in range(1, most + 1):  # noqa: B007
        prior, confusion = maximise(posterior)
        logs = np.log(np.maximum(confusion, _LEAST))
        logits = np.einsum("ajn,akj->nk", counts, logs) + np.log(np.maximum(prior, _LEAST))
        updated = _normalised(logits)
        moved = float(np.abs(updated - posterior).max())
        posterior = updated
        if moved < tolerance:
            break
    prior, confusion = maximise(posterior)
    return Reliability(prior, confusion, posterior, steps)


def one_coin(
    item: ArrayLike,
    annotator: ArrayLike,
    label: ArrayLike,
    tolerance: float = 1e-9,
    most: int = 5000,
) -> Reliability:
    """Estimate one accuracy per annotator for two exchangeable classes.

    The order within a pair is arbitrary, so the prior is 0.5 and an annotator's error rate is the
    same for both classes. With two or more annotators who mostly agree, the estimates lie above
    0.5 and not at their mirror image.

    Args:
        item: [labels] item index.
        annotator: [labels] annotator index.
        label: [labels] 0 or 1.
        tolerance: Largest change of a posterior at convergence.
        most: Maximum number of steps.

    Raises:
        ValueError: If there are no labels, or the three differ in length.
    """
    items, annotators, labels = _checked(item, annotator, label)
    size = annotators.max() + 1
    label_totals = np.maximum(np.bincount(annotators, minlength=size), 1)
    second = _vote_shares(items, labels, 2)[:, 1]
    sign = 2.0 * labels - 1.0

    def maximise(second: NDArray[np.float64]) -> NDArray[np.float64]:
        right = np.where(labels == 1, second[items], 1.0 - second[items])
        return np.bincount(annotators, right, minlength=size) / label_totals

    steps = 0
    for steps in range(1, most + 1):  # noqa: B007
        sure = np.clip(maximise(second), 1e-6, 1.0 - 1e-6)
        evidence = sign * np.log(sure / (1.0 - sure))[annotators]
        logit = np.bincount(items, evidence, minlength=len(second))
        updated = 1.0 / (1.0 + np.exp(-np.clip(logit, -700, 700)))
        moved = float(np.abs(updated - second).max())
        second = updated
        if moved < tolerance:
            break
    accuracy = maximise(second)
    confusion = np.stack(
        [np.stack([accuracy, 1 - accuracy], 1), np.stack([1 - accuracy, accuracy], 1)], 1
    )
    return Reliability(np.full(2, 0.5), confusion, np.stack([1 - second, second], 1), steps)


def _checked(
    item: ArrayLike, annotator: ArrayLike, label: ArrayLike
) -> tuple[NDArray[np.intp], ...]:
    arrays = tuple(np.asarray(values, dtype=np.intp) for values in (item, annotator, label))
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1 or not len(arrays[0]):
        raise ValueError("items, annotators and labels must be equally long vectors, not empty")
    return arrays


def _vote_shares(
    items: NDArray[np.intp], labels: NDArray[np.intp], classes: int
) -> NDArray[np.float64]:
    shares = np.zeros((items.max() + 1, classes))
    np.add.at(shares, (items, labels), 1.0)
    total = shares.sum(axis=1, keepdims=True)
    return np.where(total > 0, shares / np.maximum(total, 1.0), 1.0 / classes)


def _normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))
