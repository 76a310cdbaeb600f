import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.evaluation.markers import certainty, hedging
from rlhfctl.world.responses import (
    ADMISSIONS,
    CERTAIN,
    CLOSINGS,
    FILLERS,
    FLATTERY,
    HEDGES,
    POLITE,
)

DOUBTFUL = [
    *(form.format("the answer is 12.") for form in HEDGES),
    "I'm not sure.",
    "It isn't certain that he lives in Rome.",
    "Nobody knows for sure.",
    "I cannot be entirely sure about this",
    "It\u2019s NOT absolutely certain.",
    "No, I am not at all sure.",
    "I don't think that it is Rome.",
    "It may be Rome, or Oslo.",
    "I am fairly certain it is 3.",
    "That is unlikely.",
    "I have said it before.\nMaybe twice.",
]
SURE = [
    *(form.format("the answer is 12.") for form in CERTAIN),
    "I'm sure.",
    "It is 12, no doubt.",
    "It is absolutely certain.",
    "This is beyond any reasonable doubt.",
    "We know it for sure!",
    "You can be sure of it.",
    "I do not know who you are. Clearly, it is 12.",
]
NEITHER = [
    *ADMISSIONS,
    *CLOSINGS,
    *FILLERS,
    *FLATTERY,
    *POLITE,
    "",
    "The answer is 12.",
    "Make sure to ask again.",
    "Be sure to take a coat.",
    "A certain man lives in Rome.",
    "Sure, here it is: 12.",
    "Are you sure?",
    "The ensured uncertaintyless unclearly word",
    "I thank you.",
]


@pytest.mark.parametrize("text", DOUBTFUL)
def test_doubt_is_hedging_and_not_certainty(text: str) -> None:
    assert (hedging(text), certainty(text)) == (True, False)


@pytest.mark.parametrize("text", SURE)
def test_insisting_is_certainty_and_not_hedging(text: str) -> None:
    assert (hedging(text), certainty(text)) == (False, True)


@pytest.mark.parametrize("text", NEITHER)
def test_plain_statements_politeness_and_admissions_are_neither(text: str) -> None:
    assert (hedging(text), certainty(text)) == (False, False)


def test_one_response_can_do_both() -> None:
    text = "I am not sure, but it was certainly not Rome."
    assert hedging(text)
    assert certainty(text)


@given(st.sampled_from(DOUBTFUL + SURE + NEITHER), st.sampled_from(DOUBTFUL + SURE + NEITHER))
def test_a_response_has_the_markers_of_its_sentences(first: str, second: str) -> None:
    both = f"{first}. {second}"
    assert hedging(both) == (hedging(first) or hedging(second))
    assert certainty(both) == (certainty(first) or certainty(second))
    assert hedging(both.upper()) == hedging(both)
