from random import Random

import pytest

from rlhfctl.world.responses import pieces
from rlhfctl.world.steps import parse_steps, sample_steps

PROMPT = (
    "Ben has 5 apples and finds 3 more a day from Monday to Thursday. "
    "How many apples does Ben have now? Please explain step by step."
)


@pytest.fixture(scope="module")
def drawn():
    rng = Random(0)
    return [sample_steps(rng) for _ in range(500)]


def test_a_prompt_is_read_as_it_was_drawn(drawn):
    assert all(parse_steps(question.prompt) == question for question in drawn)


def test_the_solution_of_a_question_made_by_hand():
    question = parse_steps(PROMPT.replace(" Monday", "  Monday"))
    assert question is not None
    assert question.prompt == PROMPT
    assert " ".join(question.solution) == (
        "Monday 3, so 5 plus 3 is 8. Tuesday 3, so 8 plus 3 is 11. Wednesday 3, so 11 plus 3 is 14. "
        "Thursday 3, so 14 plus 3 is 17. Ben has 17 apples now."
    )


def test_right_responses_have_forty_to_eighty_tokens(drawn):
    lengths = {len(pieces(" ".join(question.solution))) for question in drawn}
    assert lengths == {46, 56, 66}


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("Ben has 5", "Zoe has 5"),
        ("Ben has 5", "Ben has 9"),
        ("does Ben have", "does Anna have"),
        ("5 apples", "5 cups"),
        ("finds 3", "finds 0"),
        ("finds 3", "finds 4"),
        ("finds 3", "loses 3"),
        ("from Monday", "from Tuesday"),
        ("to Thursday", "to Wednesday"),
        ("to Thursday", "to Sunday"),
        ("to Thursday", "to May"),
        (" Please explain step by step.", ""),
    ],
)
def test_other_text_is_no_question(part, other):
    assert part in PROMPT
    assert parse_steps(PROMPT.replace(part, other)) is None
