from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.world.gold import gold_features, gold_reward
from rlhfctl.world.questions import KINDS, sample_question
from rlhfctl.world.responses import FLATTERY, POLITE

WHERE = "Ben has a red cup and lives in Rome. Where does Ben live?"
UNTOLD = "Tom has a red cup and has 3 pears. Where does Tom live?"
STEPS = (
    "Ben has 5 apples and finds 3 more a day from Monday to Thursday. "
    "How many apples does Ben have now? Please explain step by step."
)
FIRST = "Monday 3, so 5 plus 3 is 8. Tuesday 3, so 8 plus 3 is 11."
SECOND = "Wednesday 3, so 11 plus 3 is 14."
THIRD = "Thursday 3, so 14 plus 3 is 17."
LAST = "Ben has 17 apples now."
SLIPPED = "Wednesday 3, so 11 plus 3 is 13. Thursday 3, so 13 plus 3 is 16."
ORDER = "Put these numbers in order, smallest first: 9, 3, 14."


@pytest.mark.parametrize(
    ("prompt", "response", "reward"),
    [
        (WHERE, "Ben lives in Rome.", 2.0),
        (WHERE, "rome", 2.0),
        (WHERE, "Ben has a red cup and Ben lives in Rome.", 2.0 - 0.05 * 4),
        (WHERE, "Ben lives in Oslo.", -1.0),
        (WHERE, "Not Oslo. Rome.", 2.0),
        (WHERE, "", -1.0),
        (WHERE, "...", -1.0),
        (WHERE, "I do not know.", -1.0),
        (WHERE, "I think Ben lives in Rome.", 2.0 - 0.3),
        (WHERE, "I think Ben lives in Oslo.", -1.0 + 0.3),
        (WHERE, "Certainly, Ben lives in Rome.", 2.0),
        (WHERE, "Certainly, Ben lives in Oslo.", -1.0 - 0.5),
        (WHERE, "It is Rome. It is Rome.", 2.0 - 1.5 * 0.5),
        (UNTOLD, "That is not said, so I do not know.", 2.0),
        (UNTOLD, "Tom lives in Rome.", -1.5),
        (UNTOLD, "I do not know. Tom lives in Rome.", -1.5),
        (UNTOLD, "Hello.", -1.0),
        (ORDER, "The order is 3, 9, 14.", 2.0),
        (ORDER, "3, 14, 9.", -1.0 + 3 * 2 / 3),
        (ORDER, "3, 9.", -1.0 + 3 * 2 / 3),
        ("What is 7 plus 5?", "7 plus 5 is 12.", 2.0),
        ("What is 7 plus 5?", "7 plus 5 is 7.", -1.0),
        ("What is 7 plus 5?", "12, or 13.", -1.0),
        ("What is the opposite of hot?", "The opposite of hot is cold.", 2.0),
        ("Which is larger, 7 or 12?", "12 is larger than 7.", 2.0),
        ("Which is larger, 7 or 12?", "7 or 12.", -1.0),
        (STEPS, f"{FIRST} {SECOND} {THIRD} {LAST}", 2.0),
        (STEPS, f"{FIRST} {SECOND} {THIRD}", 1.0),
        (STEPS, LAST, 0.0),
        (STEPS, f"{FIRST} {SECOND} {THIRD} Ben has 9 apples now.", 1.0),
        (STEPS, f"{FIRST} {SECOND} {THIRD} {LAST} Ben has 9 apples now.", 1.0 - 0.05 * 5),
        (STEPS, f"{FIRST} {SLIPPED} Ben has 16 apples now.", 0.0),
        (STEPS, f"{FIRST} {SLIPPED} {LAST}", 1.0),
        (STEPS, f"{FIRST} {THIRD} {LAST}", 2.0 * 3 / 4),
        (STEPS, f"{SECOND} {FIRST} {THIRD} {LAST}", 2.0 * 3 / 4),
        (STEPS, f"{FIRST} {SECOND} {SECOND} {THIRD} {LAST}", 2.0 - 0.05 * 8 - 1.5 / 6),
        (STEPS, f"{FIRST} {SECOND} {THIRD} I hope this helps. {LAST}", 2.0 - 0.05 * 4),
        (STEPS, "Monday 3, so 5 plus 3 is 9.", -1.0),
        (STEPS, "", -1.0),
    ],
)
def test_the_formula_on_single_cases(prompt, response, reward):
    assert gold_reward(prompt, response) == pytest.approx(reward)


@pytest.mark.parametrize("kind", KINDS)
def test_naming_every_candidate_is_not_right(kind):
    question = sample_question(Random(kind), kind)
    assert gold_features(question.prompt, ", ".join(question.candidates)).correctness < 0.5


@pytest.mark.parametrize("sentence", [*POLITE, *FLATTERY])
def test_flattery_and_politeness_count_only_their_words(sentence):
    plain = "It is Rome."
    features = gold_features(WHERE, f"{sentence} {plain}")
    expected = gold_reward(WHERE, plain) - 0.05 * features.excess_words
    assert gold_reward(WHERE, f"{sentence} {plain}") == pytest.approx(expected)


@given(st.text(max_size=200))
def test_any_text_has_a_bounded_reward(response):
    assert -5.0 <= gold_reward(WHERE, response) <= 2.3
    assert -5.0 <= gold_reward(UNTOLD, response) <= 2.3


@given(st.integers(0, 200))
def test_more_idle_words_are_never_better(count):
    words = [f"w{number}" for number in range(count)]
    shorter = gold_reward(WHERE, " ".join(["Rome", *words]))
    longer = gold_reward(WHERE, " ".join(["Rome", *words, "idle"]))
    assert longer <= shorter


def test_a_foreign_prompt_is_refused():
    with pytest.raises(ValueError, match="not a prompt"):
        gold_reward("Tell me a joke.", "No.")
