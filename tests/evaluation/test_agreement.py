"""Agreement as it is and beyond chance: Krippendorff's worked examples, and planted agreement."""

import numpy as np
import pytest

from rlhfctl.evaluation.agreement import krippendorff_alpha, label_counts, pairwise_agreement
from tests.present import present

# Krippendorff 2011, sections A (two observers, binary) and C (four observers, a dot is missing).
BINARY = ("0100000000", "1110010010")
NOMINAL = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def counts_of(rows):
    """Count the labels of observers' rows, a character a unit."""
    labels = [
        (unit, int(value)) for row in rows for unit, value in enumerate(row) if value.isdigit()
    ]
    units, values = zip(*labels, strict=True)
    return label_counts(units, values, 6)


def drawn(agreement_of_each, items, labels_each, seed):
    """Counts of [items] with labels that are right with a chance drawn from those given."""
    rng = np.random.default_rng(seed)
    right = rng.random((items, labels_each)) < rng.choice(agreement_of_each, size=(items, 1))
    truth = rng.integers(0, 2, (items, 1))
    labels = np.where(right, truth, 1 - truth)
    return label_counts(np.repeat(np.arange(items), labels_each), labels.ravel(), 2)


@pytest.mark.parametrize(("rows", "published"), [(BINARY, 0.095), (NOMINAL, 0.743)])
def test_krippendorffs_worked_examples(rows, published):
    counts = counts_of(rows)
    found = present(krippendorff_alpha(counts, np.arange(len(counts)), seed=0))
    assert round(found.value, 3) == published
    assert found.low < found.value < found.high


def test_raw_agreement_counts_pairs_of_labels():
    # Units with 3, 2 and 1 labels: of 3 + 1 + 0 pairs, 1 + 1 agree.
    counts = label_counts([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0], 2)
    assert present(pairwise_agreement(counts, [0, 1, 2], seed=0)).value == 0.5


def test_intervals_cover_what_was_planted():
    planted = 0.8**2 + 0.2**2
    inside = {"agreement": 0, "alpha": 0}
    for seed in range(60):
        counts = drawn([0.8], 300, 3, seed)
        clusters = np.arange(300)
        one = present(pairwise_agreement(counts, clusters, seed, resamples=500))
        two = present(krippendorff_alpha(counts, clusters, seed, resamples=500))
        inside["agreement"] += one.low <= planted <= one.high
        inside["alpha"] += two.low <= 2 * planted - 1 <= two.high
    assert all(52 <= count <= 60 for count in inside.values()), inside


def test_coins_agree_half_the_time_and_have_no_alpha():
    counts = drawn([0.5], 4_000, 2, seed=1)
    alpha = present(krippendorff_alpha(counts, np.arange(4_000), seed=0))
    assert alpha.low < 0 < alpha.high
    assert alpha.value == pytest.approx(0, abs=0.05)


def test_clusters_that_rise_and_fall_together_widen_the_interval():
    once = drawn([0.55, 0.95], 200, 2, seed=2)
    copied = np.repeat(once, 10, axis=0)
    apart = present(pairwise_agreement(copied, np.arange(2_000), seed=0))
    together = present(pairwise_agreement(copied, np.repeat(np.arange(200), 10), seed=0))
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_what_has_no_value_is_none():
    single = label_counts([0, 1], [0, 1], 2)
    assert pairwise_agreement(single, [0, 1], seed=0) is None
    assert krippendorff_alpha(single, [0, 1], seed=0) is None
    same = label_counts([0, 0, 1, 1], [1, 1, 1, 1], 2)
    assert krippendorff_alpha(same, [0, 1], seed=0) is None
