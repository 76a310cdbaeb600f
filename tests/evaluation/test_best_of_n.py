"""Best-of-n: exact KL, and an estimate that is the mean over all choices of n samples."""

import itertools
import math

import numpy as np
import pytest

from rlhfctl.evaluation.best_of_n import best_of_n_curve, best_of_n_kl, best_of_n_mean, sizes
from tests.present import present

PROXY = [0.1, 0.9, 0.4, 0.7, 0.2]
GOLD = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("n", "kl"),
    [(1, 0.0), (2, 0.1931), (4, 0.6363), (8, 1.2044), (16, 1.8351), (64, 3.1745), (256, 4.5491),
     (512, 5.2403), (1000, 5.9088), (12500, 8.4336), (60000, 10.0021)],
)  # fmt: skip
def test_kl_is_the_published_one(n, kl):
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-5)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_kl_is_that_of_the_largest_of_n_uniform_numbers(n):
    at = (np.arange(1_000_000) + 0.5) / 1_000_000
    density = n * at ** (n - 1)
    assert best_of_n_kl(n) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-5)


@pytest.mark.parametrize(("n", "value"), list(enumerate([3.0, 3.1, 2.7, 2.4, 2.0], start=1)))
def test_golden_values(n, value):
    assert best_of_n_mean([PROXY], [GOLD], n) == pytest.approx([value], abs=1e-12)


@pytest.mark.parametrize("n", range(1, 8))
def test_is_the_mean_over_all_subsets_and_a_tie_is_drawn(n):
    rng = np.random.default_rng(n)
    proxy, gold = rng.integers(0, 4, 7).astype(float), rng.normal(size=7)
    means = []
    for chosen in itertools.combinations(range(7), n):
        best = max(proxy[list(chosen)])
        means.append(np.mean([gold[at] for at in chosen if proxy[at] == best]))
    assert best_of_n_mean([proxy], [gold], n) == pytest.approx([np.mean(means)], abs=1e-12)


def test_many_samples_neither_overflow_nor_lose_weight():
    proxy = np.random.default_rng(0).normal(size=(1, 20_000))
    for n in (1, 100, 10_000, 20_000):
        assert best_of_n_mean(proxy, np.ones_like(proxy), n) == pytest.approx([1.0], abs=1e-6)
    assert best_of_n_mean(proxy, proxy, 20_000)[0] == pytest.approx(proxy.max(), abs=1e-6)


def test_the_curve_has_powers_of_two_and_the_whole():
    assert list(sizes(1)) == [1]
    assert list(sizes(6)) == [1, 2, 4, 6]
    assert list(sizes(8)) == [1, 2, 4, 8]
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=(200, 8))
    curve = best_of_n_curve(proxy, proxy, seed=0)
    assert [row.n for row in curve] == [1, 2, 4, 8]
    assert curve[2].kl == math.log(4) - 0.75
    for row, expected in zip(curve, [0.0, 0.5642, 1.0294, 1.4236], strict=True):  # normal maxima
        assert present(row.value.low) < expected < present(row.value.high)


def test_one_prompt_has_no_interval():
    assert best_of_n_curve([PROXY], [GOLD], 0)[0].value.low is None


@pytest.mark.parametrize("n", [0, 6])
def test_more_than_there_are_is_refused(n):
    with pytest.raises(ValueError, match="between 1 and the number of samples"):
        best_of_n_mean([PROXY], [GOLD], n)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        best_of_n_mean([PROXY], [GOLD[:4]], 2)
    with pytest.raises(ValueError, match="at least 1"):
        best_of_n_kl(0)
