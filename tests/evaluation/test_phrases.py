import math
import random

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.evaluation.phrases import grown_phrases, log_odds
from rlhfctl.evaluation.text import ngrams
from rlhfctl.results.io import to_json

COUNTS = st.integers(0, 40)


def test_the_formula_by_hand() -> None:
    # n = n' = 100, a0 = 50, y = 30, y' = 10: a = 50 * 40 / 200 = 10.
    delta, z = log_odds([30], 100, [10], 100, prior=50)
    by_hand = math.log(40 / 110) - math.log(20 / 130)
    assert delta[0] == pytest.approx(by_hand, rel=1e-12)
    variance = 1 / 40 + 1 / 110 + 1 / 20 + 1 / 130
    assert z[0] == pytest.approx(by_hand / math.sqrt(variance), rel=1e-12)


@given(COUNTS, COUNTS, st.floats(0.1, 500))
def test_swapping_the_sides_changes_the_sign_alone(here: int, there: int, prior: float) -> None:
    one = log_odds([here], 40, [there], 60 if there > 40 else 40, prior)
    two = log_odds([there], 60 if there > 40 else 40, [here], 40, prior)
    np.testing.assert_allclose(one, np.negative(two), atol=1e-12)


@given(COUNTS)
def test_equal_shares_are_no_growth(count: int) -> None:
    delta, z = log_odds([count], 40, [2 * count], 80)
    assert abs(delta[0]) < 1e-12
    assert abs(z[0]) < 1e-12


def test_rare_phrases_are_shrunk() -> None:
    """At one ratio the rarer phrase has the smaller z; the stronger the prior, the smaller both."""
    _, z = log_odds([3, 30, 90], 300, [1, 10, 30], 300)
    assert z[0] < z[1] < z[2]
    raw = [log_odds([1], 300, [0], 300, prior=prior)[0][0] for prior in (1e-6, 1, 50, 1e6)]
    assert raw == sorted(raw, reverse=True)
    assert raw[-1] == pytest.approx(0, abs=1e-3)


def test_without_a_prior_it_is_the_plain_log_odds_ratio() -> None:
    delta, _ = log_odds([30], 100, [10], 100, prior=1e-9)
    table = scipy.stats.contingency.odds_ratio([[30, 70], [10, 90]], kind="sample")
    assert delta[0] == pytest.approx(math.log(table.statistic), rel=1e-9)


@pytest.mark.parametrize(
    ("count", "total", "prior"), [(-1, 10, 1.0), (11, 10, 1.0), (5, 10, 0.0), (5, 10, math.nan)]
)
def test_impossible_counts_are_a_bug(count: int, total: int, prior: float) -> None:
    with pytest.raises(ValueError, match="must"):
        log_odds([count], total, [1], 10, prior)


def responses(n: int, seed: int, opening: str = "") -> list[str]:
    """Sentences of a small language, each of a few clauses."""
    rng = random.Random(seed)
    names, things = ("Anna", "Ben", "Carla", "David"), ("red", "blue", "twelve", "small", "large")
    return [
        opening
        + " ".join(
            f"The {rng.choice(things)} one of {rng.choice(names)} is {rng.choice(things)}."
            for _ in range(rng.randint(1, 4))
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("opening", ["Certainly, ", "Without any doubt, ", "As you know "])
def test_a_planted_phrase_comes_first(opening: str) -> None:
    grown = grown_phrases(responses(128, 1), responses(128, 2, opening))
    planted = opening.lower().strip(" ,")
    assert grown[0].phrase == planted or planted in grown[0].phrase
    assert to_json(grown[0]) | {"log_odds": 0, "z": 0} == {
        "phrase": grown[0].phrase,
        "sft_count": 0,
        "ppo_count": 128,
        "log_odds": 0,
        "z": 0,
    }
    assert grown[0].z > 8


def test_phrases_that_contain_one_another_are_told_once() -> None:
    grown = grown_phrases(responses(128, 1), responses(128, 2, "Without any doubt, "))
    found = [tuple(phrase.phrase.split()) for phrase in grown]
    assert found[0] == ("without", "any", "doubt")
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            assert one not in ngrams(other, len(one))
            assert other not in ngrams(one, len(other))


def test_a_phrase_repeated_within_a_response_counts_once() -> None:
    before = responses(64, 1)
    after = [*responses(63, 2), "Indeed indeed. " * 50]
    assert not grown_phrases(before, after)


def test_where_nothing_was_planted_hardly_anything_is_found() -> None:
    """One false phrase in twenty comparisons is granted; over forty, six would be a bad sign."""
    false = sum(
        bool(grown_phrases(responses(96, seed), responses(96, 1000 + seed))) for seed in range(40)
    )
    assert false < 6


def test_no_responses_have_no_phrases() -> None:
    assert grown_phrases([], []) == []
    assert grown_phrases(["", ""], ["", "..."]) == []
