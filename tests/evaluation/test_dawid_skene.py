"""Annotators' reliability by EM: the paper's own table, and planted annotators."""

import numpy as np
import pytest

from rlhfctl.evaluation.dawid_skene import dawid_skene, one_coin

# Dawid & Skene 1979, table 1: 45 patients; observer 1 three times, then observers 2 to 5.
TABLE = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343
1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222
1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343
2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
PATIENTS = TABLE.split()
OBSERVERS = (0, 0, 0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def found():
    labels = [
        (patient, observer, int(answer) - 1)
        for patient, answers in enumerate(PATIENTS)
        for observer, answer in zip(OBSERVERS, answers, strict=True)
    ]
    patients, observers, answers = zip(*labels, strict=True)
    return dawid_skene(patients, observers, answers, 4)


def test_the_papers_class_probabilities(found):
    assert len(PATIENTS) == 45
    assert found.prior.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]


def test_the_papers_error_rates_of_observer_1(found):
    assert found.confusion[0].round(2).tolist() == [
        [0.89, 0.11, 0.00, 0.00],
        [0.07, 0.88, 0.05, 0.00],
        [0.00, 0.34, 0.66, 0.00],
        [0.00, 0.00, 0.56, 0.44],
    ]


def test_the_papers_classes_of_the_first_patients(found):
    assert (found.posterior[:6].argmax(axis=1) + 1).tolist() == [1, 4, 2, 2, 2, 2]
    assert found.posterior[:6].max(axis=1).round(2).tolist() == [1.0] * 6


def planted(accuracies, items, labels_each, seed, prior=0.5):
    """Labels of random annotators on each item; both classes are as easy."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(items) < prior).astype(int)
    rows = []
    for item in range(items):
        for annotator in rng.permutation(len(accuracies))[:labels_each]:
            right = rng.random() < accuracies[annotator]
            rows.append((item, annotator, truth[item] if right else 1 - truth[item]))
    return truth, [np.array(column) for column in zip(*rows, strict=True)]


def test_one_coin_finds_planted_accuracies_from_two_labels_an_item():
    accuracies = [0.95, 0.85, 0.75, 0.65, 0.55]
    _, labels = planted(accuracies, 20_000, 2, seed=1)
    assert one_coin(*labels).accuracy == pytest.approx(accuracies, abs=0.03)


def test_one_coins_posterior_beats_the_majority():
    truth, labels = planted([0.95, 0.6, 0.6, 0.6, 0.6], 4_000, 5, seed=2)
    posterior = one_coin(*labels).posterior
    majority = np.bincount(labels[0], labels[2]) > 2.5
    assert (posterior.argmax(axis=1) == truth).mean() > (majority == truth).mean() + 0.1
    assert posterior.sum(axis=1) == pytest.approx(1.0)


def test_one_coin_is_blind_to_which_class_is_called_first():
    _, (item, annotator, label) = planted([0.9, 0.7, 0.6], 500, 3, seed=3, prior=0.8)
    turned = np.random.default_rng(0).random(500) < 0.5
    flipped = np.where(turned[item], 1 - label, label)
    assert one_coin(item, annotator, label).accuracy == pytest.approx(
        one_coin(item, annotator, flipped).accuracy, abs=1e-6
    )


def test_equal_annotators_are_found_equal():
    _, labels = planted([0.8] * 5, 10_000, 5, seed=4)
    assert np.ptp(one_coin(*labels).accuracy) < 0.02


def test_a_full_matrix_finds_an_annotator_who_favours_one_class():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 5_000)
    item, annotator = np.divmod(np.arange(20_000), 4)
    right = rng.random(20_000) < 0.8
    label = np.where(right, truth[item], (truth[item] + rng.integers(1, 3, 20_000)) % 3)
    label[(annotator == 3) & (truth[item] == 2)] = 0
    confusion = dawid_skene(item, annotator, label, 3).confusion
    assert confusion[3, 2] == pytest.approx([1, 0, 0], abs=0.02)
    assert np.diagonal(confusion[:3], axis1=1, axis2=2) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("bad", [([], [], []), ([0, 1], [0], [0, 1])])
def test_what_are_no_labels_is_refused(bad):
    with pytest.raises(ValueError, match="equally long"):
        one_coin(*bad)
