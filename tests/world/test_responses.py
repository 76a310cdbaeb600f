from random import Random

import pytest

from rlhfctl.world.gold import gold_features
from rlhfctl.world.lexicon import CITIES, COLOURS, LIST_WORDS, NAMES, NUMBERS, THINGS
from rlhfctl.world.questions import ADJECTIVES, KINDS, sample_question
from rlhfctl.world.responses import (
    CLOSINGS,
    FILLERS,
    FLATTERY,
    MAX_TOKENS,
    POLITE,
    Style,
    pieces,
    render,
    sample_style,
)


@pytest.mark.parametrize("kind", KINDS)
def test_right_responses_are_right_and_concise_and_wrong_ones_wrong(kind):
    rng = Random(f"responses {kind}")
    for _ in range(100):
        question = sample_question(rng, kind)
        right = gold_features(question.prompt, render(question, Style("right"), rng))
        assert right.correctness == 1.0
        assert right.excess_words == 0
        for correctness in ("partial", "wrong"):
            response = render(question, Style(correctness), rng)
            assert gold_features(question.prompt, response).correctness < 1.0


def test_every_style_is_found_again_by_the_gold_features():
    rng = Random("styles")
    for _ in range(2_000):
        question = sample_question(rng)
        style = sample_style(rng, rng.random())
        response = render(question, style, rng)
        features = gold_features(question.prompt, response)
        assert (features.correctness == 1.0) == (style.correctness == "right"), response
        assert features.hedged == (style.certainty == "hedged"), response
        assert features.certain == (style.certainty == "certain"), response
        assert features.flattering == (style.opening == "flattering"), response
        assert features.polite == (style.opening == "polite"), response
        assert len(pieces(response)) <= MAX_TOKENS


def test_phrases_around_the_answer_name_no_candidate():
    words = {
        word.lower()
        for phrase in (*POLITE, *FLATTERY, *FILLERS, *CLOSINGS)
        for word in pieces(phrase)
    }
    candidates = {*NAMES, *CITIES, *COLOURS, *THINGS, *LIST_WORDS, *NUMBERS, *ADJECTIVES}
    assert not words & {candidate.lower() for candidate in candidates}


def test_less_care_makes_longer_and_wronger_responses():
    def mean_words_and_right(quality: float) -> tuple[float, float]:
        rng = Random(f"care {quality}")
        seen = []
        for _ in range(400):
            question = sample_question(rng)
            response = render(question, sample_style(rng, quality), rng)
            seen.append(gold_features(question.prompt, response))
        return (
            sum(features.words for features in seen) / len(seen),
            sum(features.correctness for features in seen) / len(seen),
        )

    careful, careless = mean_words_and_right(1.0), mean_words_and_right(0.0)
    assert careful[1] == 1.0
    assert careless[1] < 0.3
    assert careless[0] > careful[0] + 5


def test_a_quality_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="quality"):
        sample_style(Random(0), 1.5)
