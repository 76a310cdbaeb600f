"""The rule of the small real task: one sentence of 6 to 18 words."""

import pytest

from examples.one_sentence import SIZES, misses, prompts, rule

GOOD = "Bees carry pollen from flower to flower while they look for food."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (GOOD, 0),
        ("Bees carry pollen.", 3),
        (f"{GOOD} They also make honey.", 4),
        (" ".join(["word"] * 23) + ".", 5),
        (GOOD.removesuffix("."), 1),
        ("", 7),
    ],
)
def test_an_answer_misses_by_the_words_to_add_or_remove(answer, words):
    assert misses(answer) == words


def test_the_nearer_answer_is_preferred_and_equal_ones_are_even():
    assert rule(["q"] * 3, [GOOD, "No.", GOOD], ["No.", GOOD, GOOD]) == [1.0, 0.0, 0.5]


def test_no_prompt_is_in_two_files():
    files = prompts(0)
    assert {name: len(texts) for name, texts in files.items()} == SIZES
    assert len({text for texts in files.values() for text in texts}) == sum(SIZES.values())
