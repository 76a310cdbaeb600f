import math
from dataclasses import replace

from rlhfctl.report.samples import MOST_CHARACTERS, cut, held_out, of_training
from rlhfctl.results.samples import EvaluationSample, SampleScores, TrainingSample

ROW = EvaluationSample(
    "Who?",
    {"sft": "Me.", "ppo": "You."},
    {"sft": SampleScores(proxy=2.0, gold=0.1, kl=0.0), "ppo": SampleScores(proxy=1.0, gold=0.2)},
)


def test_gold_prefers_before_the_proxy_does() -> None:
    (sample,) = held_out([ROW])
    sft, ppo = sample.responses
    assert (sft.preferred, ppo.preferred) == ("", "preferred by gold")
    assert sft.scores == "proxy 2.00 · gold 0.100 · log ratio to the reference 0"


def test_the_proxy_prefers_where_gold_is_unknown_and_nobody_does_at_a_tie() -> None:
    scores = {"sft": SampleScores(proxy=2.0), "ppo": SampleScores(proxy=1.0)}
    (sample,) = held_out([replace(ROW, scores=scores)])
    assert [response.preferred for response in sample.responses] == ["preferred by proxy", ""]
    tied = {"sft": SampleScores(proxy=1.0), "ppo": SampleScores(proxy=1.0)}
    (sample,) = held_out([replace(ROW, scores=tied)])
    assert [response.preferred for response in sample.responses] == ["", ""]


def test_what_is_missing_is_left_out() -> None:
    (sample,) = held_out([EvaluationSample("Who?", {"sft": "Me."}, {})])
    assert [response.policy for response in sample.responses] == ["SFT"]
    assert sample.responses[0].scores == ""


def test_long_texts_are_cut_and_say_so() -> None:
    shown = cut("x" * (MOST_CHARACTERS + 1234))
    assert shown.endswith(" … (1,234 more characters)")
    assert len(shown) < MOST_CHARACTERS + 40
    assert len(cut("\x1b" * MOST_CHARACTERS)) < MOST_CHARACTERS + 40


def test_training_samples_carry_their_metrics() -> None:
    row = TrainingSample(512, "p", "r\x07", 1.5, math.nan, ended=True)
    (sample,) = of_training([row])
    assert (sample.episode, sample.response, sample.metrics) == ("512", r"r\u0007", "score 1.50")
