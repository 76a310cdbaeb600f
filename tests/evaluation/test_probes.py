import pytest

from rlhfctl.evaluation.probes import (
    FILLER,
    PROBES,
    another,
    certain,
    padded,
    repeated,
    shuffled,
    without_hedge,
)
from tests.present import present


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("I think the cup is red.", "The cup is red."),
        ("I am not sure, but it is in Rome.", "It is in Rome."),
        ("I'm not entirely sure but Rome.", "Rome."),
        ("Well. Perhaps Anna has it. I guess so.", "Well. Anna has it. I guess so."),
        ("It is probably three.", "It is three."),
        ("It is, perhaps, three.", "It is three."),
        ("As far as I know, it is three.", "It is three."),
        ("The cup is red.", None),
        ("I do not think that it is red.", None),
        ("I am not sure.", None),
        ("I do not know.", None),
    ],
)
def test_a_hedge_is_taken_away_and_nothing_else(text, bare):
    assert without_hedge(text) == bare


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("It is red.", "Without any doubt, it is red."),
        ("Anna has it.", "Without any doubt, Anna has it."),
        ("Yes. I think the cup is red.", "Yes. Without any doubt, the cup is red."),
        (" The cup is red.", " Without any doubt, the cup is red."),
    ],
)
def test_a_response_is_made_certain_where_it_says_most(text, sure):
    assert certain(text).strip() == sure.strip()


def test_filler_stands_behind_and_a_repetition_beside():
    assert padded("It is red. ") == f"It is red. {FILLER}"
    assert repeated(" Yes. It is red. Ask me.") == " Yes. It is red. It is red. Ask me."


def test_shuffling_keeps_the_words_and_never_the_order():
    for seed in range(20):
        drawn = shuffled("one two", seed)
        assert drawn == "two one"
    assert sorted(present(shuffled("a b c d e", 0)).split()) == list("abcde")
    assert shuffled("a b c d e", 0) == shuffled("a b c d e", 0)
    assert shuffled("no no", 0) is None


def test_another_answer_is_another_one():
    texts = ["Rome.", "Rome.", "Oslo."]
    assert [another(texts, at) for at in range(3)] == ["Oslo.", "Oslo.", "Rome."]
    assert another(["Rome.", "Rome. "], 0) is None


def test_every_probe_changes_a_response_that_it_applies_to():
    texts = ["I think the cup is red. It is on the table.", "Oslo."]
    for name, probe in PROBES.items():
        assert probe.change(texts, 0, 0) not in {None, texts[0]}, name
