from random import Random

import pytest

from rlhfctl.world.gold import gold_features, gold_reward
from rlhfctl.world.responses import pieces
from rlhfctl.world.step_responses import MAX_TOKENS, Flaws, render_steps, sample_flaws
from rlhfctl.world.steps import sample_steps


def written(flaws, seed):
    rng = Random(seed)
    question = sample_steps(rng)
    return question, render_steps(question, flaws, rng)


def test_without_flaws_a_response_is_the_solution_and_has_the_full_reward():
    for seed in range(50):
        question, text = written(Flaws(), seed)
        assert text == " ".join(question.solution)
        assert gold_reward(question.prompt, text) == pytest.approx(2.0)


@pytest.mark.parametrize("flaws", [Flaws(slip=True), Flaws(skip=True), Flaws(wrong_end=True)])
def test_each_flaw_makes_a_response_partly_wrong(flaws):
    for seed in range(50):
        question, text = written(flaws, seed)
        assert gold_features(question.prompt, text).correctness < 1.0


@pytest.mark.parametrize("padding", [Flaws(repeats=2), Flaws(fillers=2)])
def test_padding_costs_and_leaves_a_response_right(padding):
    for seed in range(50):
        question, text = written(padding, seed)
        features = gold_features(question.prompt, text)
        assert features.correctness == 1.0
        assert gold_reward(question.prompt, text) < 2.0


def test_a_slip_is_followed_through():
    question, text = written(Flaws(slip=True), 3)
    sentences = text.split(". ")
    results = [sentence.split()[-1] for sentence in sentences[:-1]]
    starts = [sentence.split("so ")[1].split()[0] for sentence in sentences[:-1]]
    assert starts == [str(question.start), *results[:-1]]
    assert sentences[-1].split()[2] == results[-1] != question.solution[-1].split()[2]


def test_no_response_is_too_long_and_many_are_flawed():
    rng = Random(1)
    for _ in range(300):
        question = sample_steps(rng)
        text = render_steps(question, sample_flaws(rng, rng.random()), rng)
        assert len(pieces(text)) <= MAX_TOKENS


@pytest.mark.parametrize("quality", [-0.1, 1.1])
def test_a_quality_is_a_share(quality):
    with pytest.raises(ValueError, match="quality"):
        sample_flaws(Random(0), quality)
