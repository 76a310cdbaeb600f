"""Near-duplicates are those of a comparison of all pairs."""

import itertools
import random

import pytest

from rlhfctl.data.near_duplicates import pairs_between, pairs_within, shingles

pytest.importorskip("datasketch")
THRESHOLD = 0.7


def texts(count, seed):
    """Texts of 40 words, each third a copy of an earlier one with a few words changed."""
    rng = random.Random(seed)
    result: list[str] = []
    for number in range(count):
        words = [f"w{rng.randrange(500)}" for _ in range(40)]
        if number % 3 == 2:
            words = result[number - 1].split()
            words[rng.randrange(40)] = "changed"
        result.append(" ".join(words))
    return result


def similarity(one, other):
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def test_pairs_within_are_those_of_all_comparisons():
    rows = texts(60, 0)
    every = {
        frozenset(pair): similarity(*pair)
        for pair in itertools.combinations(rows, 2)
        if similarity(*pair) >= THRESHOLD
    }
    pairs = pairs_within(rows, THRESHOLD)
    assert {frozenset((pair.first, pair.second)): pair.similarity for pair in pairs} == every
    assert len(pairs) == 20
    assert [pair.similarity for pair in pairs] == sorted(every.values(), reverse=True)


def test_pairs_between_name_the_first_set_first():
    rows = texts(30, 1)
    copy = rows[4].replace(rows[4].split()[0], "other")
    (pair,) = pairs_between(
        rows[:6:2] + rows[6:], [copy, "Nothing like it at all here."], THRESHOLD
    )
    assert (pair.first, pair.second) == (rows[4], copy)


def test_case_and_punctuation_do_not_count_and_short_texts_are_compared():
    assert shingles("Name a FRUIT, please!") == {"name a fruit", "a fruit please"}
    assert [pair.similarity for pair in pairs_within(["Why?", "why", "Who?"], THRESHOLD)] == [1.0]
