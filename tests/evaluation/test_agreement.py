"""Agreement as it is and beyond chance: the papers' worked examples, and planted agreement."""

import numpy as np
import pytest

from rlhfctl.evaluation.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    label_counts,
    majority_counts,
    pairwise_agreement,
)
from tests.present import present

# Krippendorff 2011, sections A (two observers, binary) and C (four observers, a dot is missing).
BINARY = ("0100000000", "1110010010")
NOMINAL = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


# Cohen 1960, table 2: the judges' categories (rows and columns) of 200 patients.
COHEN = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
# 10 subjects, 14 raters, 5 categories: the usual worked example of Fleiss's kappa.
FOURTEEN = """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1
    7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses.
DIAGNOSES = """0 0 0 6 0  0 3 0 0 3  0 1 4 0 1  0 0 0 0 6  0 3 0 3 0  2 0 4 0 0  0 0 4 0 2
    2 0 3 1 0  2 0 0 4 0  0 0 0 0 6  1 0 0 5 0  1 1 0 4 0  0 3 3 0 0  1 0 0 5 0  0 2 0 3 1
    0 0 5 0 1  3 0 0 1 2  5 1 0 0 0  0 2 0 4 0  1 0 2 0 3  0 0 0 0 6  0 1 0 5 0  0 2 0 1 3
    2 0 0 4 0  1 0 0 4 1  0 5 0 1 0  4 0 0 0 2  0 2 0 4 0  1 0 5 0 0  0 0 0 0 6"""


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


def labels_in(table):
    """Return two annotators' labels from their table of joint counts."""
    cells = [
        (row, column)
        for row, counts in enumerate(table)
        for column, count in enumerate(counts)
        for _ in range(count)
    ]
    return np.array(cells).T


def test_cohens_worked_example():
    first, second = labels_in(COHEN)
    found = present(cohen_kappa(first, second, 3, np.arange(200), seed=0))
    assert round(found.value, 3) == 0.492
    # Cohen's equation 9 gives a standard error of 0.049 = sqrt(p_o (1 - p_o) / N) / (1 - p_e),
    # with p_o = 0.70 and p_e = 0.41.
    standard_error = (0.70 * 0.30 / 200) ** 0.5 / 0.59
    assert (found.high - found.low) / 3.92 == pytest.approx(standard_error, rel=0.15)


@pytest.mark.parametrize(("table", "published"), [(FOURTEEN, 0.210), (DIAGNOSES, 0.430)])
def test_fleisss_worked_examples(table, published):
    counts = np.array(table.split(), dtype=float).reshape(-1, 5)
    found = present(fleiss_kappa(counts, np.arange(len(counts)), seed=0))
    assert round(found.value, 3) == published
    assert found.low < found.value < found.high


def test_fleisss_kappa_is_scotts_pi_for_two_annotators():
    """Scott 1955: as Cohen's, but both annotators have the mean of their class shares."""
    first, second = labels_in(COHEN)
    items = np.arange(200)
    counts = label_counts(np.tile(items, 2), np.concatenate([first, second]), 3)
    shares = counts.sum(axis=0) / 400
    chance = (shares**2).sum()
    found = present(fleiss_kappa(counts, items, seed=0, resamples=10))
    assert found.value == pytest.approx((0.70 - chance) / (1 - chance))


def test_items_with_one_label_have_no_part_in_fleisss_kappa():
    counts = np.array(FOURTEEN.split(), dtype=float).reshape(-1, 5)
    more = np.concatenate([counts, np.eye(5)])
    found = present(fleiss_kappa(more, np.arange(15), seed=0, resamples=10))
    assert found.value == present(fleiss_kappa(counts, np.arange(10), seed=0, resamples=10)).value


def test_kappa_has_no_value_where_all_labels_are_equal():
    assert cohen_kappa([1, 1], [1, 1], 2, [0, 1], seed=0) is None
    assert cohen_kappa([], [], 2, [], seed=0) is None
    assert fleiss_kappa(label_counts([0, 0, 1, 1], [1, 1, 1, 1], 2), [0, 1], seed=0) is None
    assert fleiss_kappa(label_counts([0, 1], [0, 1], 2), [0, 1], seed=0) is None


def test_a_majority_has_more_labels_than_any_other():
    counts = np.array([[2, 1, 0], [1, 1, 1], [0, 0, 3], [1, 2, 2], [0, 1, 0], [0, 0, 0]], float)
    winners, undecided = majority_counts(counts)
    assert winners.tolist() == [1, 1, 1]
    assert undecided == 3


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
