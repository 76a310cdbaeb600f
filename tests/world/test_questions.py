from random import Random

import pytest

from rlhfctl.world.questions import KINDS, parse_question, sample_question


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_read_back_gives_the_same_question(kind):
    rng = Random(f"round trip {kind}")
    for _ in range(200):
        question = sample_question(rng, kind)
        assert question.kind == kind
        assert parse_question(question.prompt) == question


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_a_candidate_and_no_distractor_is_right(kind):
    rng = Random(f"answers {kind}")
    for _ in range(100):
        question = sample_question(rng, kind)
        assert set(question.answer) <= set(question.candidates)
        assert set(question.distractors) <= set(question.candidates)
        assert question.distractors
        if not question.is_list:
            assert not set(question.answer) & set(question.distractors)
        assert len(question.prompt.split()) <= 35


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is 7 plus 5?", ("12",)),
        ("Please take 4 away from 9.", ("5",)),
        ("Tom has 3 apples and buys 4 more. How many apples does Tom have now?", ("7",)),
        ("Tom has 6 nuts and loses 2 of them. How many nuts does Tom have now?", ("4",)),
        ("Ben has a red cup and lives in Rome. Where does Ben live?", ("Rome",)),
        (
            "Ida lives in Oslo, has a red cup and has 3 pears. What colour is the cup of Ida?",
            ("red",),
        ),
        ("Ida has 5 eggs and lives in Rome. How many eggs does Ida have?", ("5",)),
        ("Which is larger, 7 or 12?", ("12",)),
        ("Which number is smaller, 7 or 12?", ("7",)),
        ("Put these numbers in order, smallest first: 9, 3, 14.", ("3", "9", "14")),
        ("Repeat these words: stone, tree.", ("stone", "tree")),
        ("How many words are in this list: cat, dog, fish?", ("3",)),
        ("Which word comes last here: cat, dog, fish?", ("fish",)),
        ("Which day comes after Sunday?", ("Monday",)),
        ("What is the month before January?", ("December",)),
        ("What is the opposite of hot?", ("cold",)),
        ("Tom has a red cup and has 3 pears. Where does Tom live?", ()),
        ("Tom has a red cup. What colour is the lamp of Tom?", ()),
    ],
)
def test_the_answer_follows_from_the_prompt(prompt, answer):
    question = parse_question(prompt)
    assert question is not None
    assert question.answer == answer


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Hello",
        "What is 3 minus 5?",
        "What is the opposite of stone?",
        "Which day comes after March?",
        "Anna lives in Oslo and lives in Rome. Where does Anna live?",
        "Put these numbers in order, smallest first: cat, dog.",
        "Which is larger, 7 or 7?",
        "Which is older, 7 or 8?",
        "What is ",
    ],
)
def test_what_is_no_prompt_of_the_world_is_not_read(prompt):
    assert parse_question(prompt) is None


def test_there_are_many_distinct_prompts():
    rng = Random("many prompts")
    assert len({sample_question(rng).prompt for _ in range(12_000)}) >= 8_000
