"""Votes of people: blinded, shuffled, counted, and their agreement."""

import pytest

from rlhfctl.evaluation.human_votes import Answered, Side, Vote, blind_pairs, human_metrics
from rlhfctl.results.io import to_json

ANSWERS = [Answered(f"Question {n}?", f"ours {n}", f"theirs {n}") for n in range(60)]


def human_metrics_json(*arguments, **options):
    """Return the result as JSON, in which an estimate is flat."""
    return to_json(human_metrics(*arguments, **options))


def sides(answers=ANSWERS, salt="salt"):
    return {pair.id: pair.ppo for pair in blind_pairs(answers, salt)}


def votes_for(name, annotator, answers=ANSWERS):
    """Votes for `ppo` or `opponent` in every pair, wherever it was shown."""
    other: dict[Side, Side] = {"a": "b", "b": "a"}
    return [
        Vote(id_, annotator, side if name == "ppo" else other[side])
        for id_, side in sides(answers).items()
    ]


def test_every_pair_is_shown_once_whole_on_drawn_sides_in_drawn_order():
    pairs = blind_pairs([*ANSWERS, ANSWERS[0]], "salt")
    assert len(pairs) == 60
    by_id = {answer.id: answer for answer in ANSWERS}
    for pair in pairs:
        answer = by_id[pair.id]
        shown = (answer.ppo, answer.opponent) if pair.ppo == "a" else (answer.opponent, answer.ppo)
        assert (pair.prompt, pair.response_a, pair.response_b) == (answer.prompt, *shown)
    assert 18 < sum(pair.ppo == "a" for pair in pairs) < 42
    assert [pair.id for pair in pairs] != [answer.id for answer in ANSWERS]


def test_an_id_tells_nothing_of_sides_and_a_pair_keeps_its_side():
    swapped = Answered("Question 0?", "theirs 0", "ours 0")
    assert swapped.id == ANSWERS[0].id
    assert sides()[ANSWERS[3].id] == sides(ANSWERS[:5])[ANSWERS[3].id]
    assert sides() == sides()
    assert sides() != sides(salt="another")


def test_votes_are_for_who_stood_on_that_side():
    metrics = human_metrics_json(ANSWERS, sides(), votes_for("ppo", "ann"), "sft", 0)
    assert (metrics["kind"], metrics["opponent"]) == ("humans", "sft")
    assert (metrics["wins"], metrics["losses"], metrics["prompts"]) == (60, 0, 60)
    assert metrics["win_rate"] == 1.0
    assert "alpha" not in metrics["annotators"]


def test_several_voters_count_as_their_mean_and_their_agreement_is_told():
    votes = [
        *votes_for("ppo", "ann"),
        *votes_for("ppo", "bob"),
        *votes_for("opponent", "eve")[:20],
        *[Vote(vote.id, "eve", "tie") for vote in votes_for("ppo", "eve")[20:]],
    ]
    metrics = human_metrics_json(ANSWERS, sides(), votes, "sft", 0)
    assert metrics["win_rate"] == pytest.approx((20 * 2 / 3 + 40 * 2.5 / 3) / 60)
    found = metrics["annotators"]
    assert (found["items"], found["labels"]) == (60, 180)
    assert found["agreement"] == pytest.approx(1 / 3)
    who = found["per_annotator"]
    assert who["ann"]["accuracy"] == who["bob"]["accuracy"] > who["eve"]["accuracy"]


def test_pairs_without_a_vote_are_left_out():
    metrics = human_metrics_json(ANSWERS, sides(), votes_for("ppo", "ann")[:7], "references", 0)
    assert metrics["prompts"] == 7
