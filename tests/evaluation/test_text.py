import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.evaluation.text import distinct_ngram_share, ngrams, repeated_ngram_share, words

TOKENS = st.lists(st.sampled_from("abc"), max_size=20)


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("the cat sat on the mat", 1, 1 / 6),
        ("so it is and so it is", 3, 1 / 5),
        ("so it is", 3, 0.0),
        ("so it", 3, 0.0),
        ("", 1, 0.0),
        ("no no no no no", 2, 3 / 4),
    ],
)
def test_the_share_of_repeated_ngrams(text: str, n: int, share: float) -> None:
    assert repeated_ngram_share(words(text), n) == pytest.approx(share)


@given(TOKENS, st.integers(1, 4))
def test_it_is_a_share_and_zero_only_without_repetition(tokens: list[str], n: int) -> None:
    share = repeated_ngram_share(tokens, n)
    assert 0 <= share < 1
    found = ngrams(tokens, n)
    assert (share == 0) == (len(found) == len(set(found)))


def test_token_ids_serve_as_well_as_words() -> None:
    assert repeated_ngram_share([7, 7, 7], 1) == pytest.approx(2 / 3)


def test_distinct_ngrams_are_counted_over_all_responses() -> None:
    same = [["yes", "it", "is"]] * 4
    assert distinct_ngram_share(same, 2) == 2 / 8
    assert distinct_ngram_share([["a", "b"], ["c", "d"]], 2) == 1
    assert distinct_ngram_share([["a"], []], 2) == 0


def test_words_stand_between_white_space() -> None:
    assert words(" one,\ttwo\n three ") == ["one,", "two", "three"]


def test_ngrams_of_no_length_are_a_bug() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ngrams("abc", 0)
