from rlhfctl.data.split import position, prompt_key
from rlhfctl.world.closed import closed_questions
from rlhfctl.world.gold import gold_features


def test_the_first_response_is_right_and_the_others_are_wrong() -> None:
    questions = closed_questions(100, 0, lambda prompt: True)
    assert len({question.prompt for question in questions}) == 100
    for question in questions:
        assert 2 <= len(question.responses) <= 4
        assert len(set(question.responses)) == len(question.responses)
        found = [gold_features(question.prompt, text).correctness for text in question.responses]
        assert found == [1.0] + [0.0] * (len(found) - 1), question


def test_seed_and_filter_decide_the_questions() -> None:
    def wanted(prompt: str) -> bool:
        return position(prompt_key(prompt)) < 0.1

    first = closed_questions(20, 5, wanted)
    assert first == closed_questions(20, 5, wanted)
    assert first != closed_questions(20, 6, wanted)
    assert all(wanted(question.prompt) for question in first)
    assert len({question.kind for question in first}) > 3


def test_where_no_prompt_may_serve_there_are_no_questions() -> None:
    assert closed_questions(2, 0, lambda prompt: False) == []
