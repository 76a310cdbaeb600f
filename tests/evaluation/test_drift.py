import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.evaluation.drift import drift, self_bleu
from rlhfctl.evaluation.policies import Responses
from rlhfctl.evaluation.text import ngrams
from rlhfctl.results.io import to_json

SENTENCES = (
    "the cat sat on the mat",
    "the cat sat on a mat today",
    "a dog lay on the mat",
    "the the the the",
    "yes",
    "quite other words here now",
    "the cat sat on the mat",
)
NLTK = 0.39236037438436416
"""nltk 3.10.4: the mean of sentence_bleu(others, own, smoothing_function=method1)."""


def drift_json(*arguments, **options):
    """Return the result as JSON, in which an estimate is flat."""
    return to_json(drift(*arguments, **options))


def slow_bleu(references, own):
    """BLEU-4 as its paper writes it, with 0.1 for a count of none."""
    logs = []
    for n in range(1, 5):
        counts = Counter(ngrams(own, n))
        clipped = sum(
            min(count, max(Counter(ngrams(reference, n))[ngram] for reference in references))
            for ngram, count in counts.items()
        )
        if n == 1 and clipped == 0:
            return 0.0
        logs.append(math.log((clipped or 0.1) / max(1, len(own) - n + 1)))
    closest = min((abs(len(r) - len(own)), len(r)) for r in references)[1]
    penalty = 1.0 if len(own) >= closest else math.exp(1 - closest / len(own))
    return penalty * math.exp(sum(logs) / 4)


def test_self_bleu_is_nltks() -> None:
    assert self_bleu([text.split() for text in SENTENCES]) == pytest.approx(NLTK, rel=1e-12)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=9), min_size=2, max_size=8))
def test_self_bleu_against_each_response_on_its_own(responses: list[list[str]]) -> None:
    slow = [
        slow_bleu(responses[:at] + responses[at + 1 :], own) for at, own in enumerate(responses)
    ]
    assert self_bleu(responses) == pytest.approx(np.mean(slow), rel=1e-12, abs=1e-12)


def test_the_same_everywhere_is_one_and_nothing_in_common_is_none() -> None:
    assert self_bleu([["a", "b", "c", "d", "e"]] * 5) == pytest.approx(1)
    assert self_bleu([["a", "b"], ["c", "d"], []]) == 0


def test_self_bleu_of_one_response_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="at least two"):
        self_bleu([["a"]])


def trial(texts, **given):
    lengths = [len(text.split()) + 1 for text in texts]
    return Responses(
        texts=texts,
        **{
            "kl": np.arange(len(texts)) / 10,
            "lengths": lengths,
            "ended": [True] * len(texts),
            "entropy": np.linspace(1, 2, len(texts)),
            **given,
        },
    )


def test_the_metrics_of_two_policies() -> None:
    before = ["Perhaps it is 12.", "It is red.", "I think so.", "Yes, Rome."] * 10
    after = [f"Certainly, {text}" for text in ("it is 12.", "it is red.", "so.", "Rome.")] * 10
    ended = [True, True, True, False] * 10
    found = drift_json({"sft": trial(before), "ppo": trial(after, ended=ended)}, ngram=2, seed=0)
    sft, ppo = found["sft"], found["ppo"]
    assert (sft["hedging"], sft["certainty"]) == (0.5, 0)
    assert (ppo["hedging"], ppo["certainty"]) == (0, 1)
    assert ppo["certainty_low"] < 1 == ppo["certainty_high"]
    assert (sft["truncated"], ppo["truncated"]) == (0, 0.25)
    assert found["phrases"][0]["phrase"] == "certainly"
    assert ppo["length"]["mean"] == pytest.approx(4)
    assert [ppo["length"][key] for key in ("p5", "median", "p95")] == [3, 4, 5]
    kl, lengths = np.arange(40) / 10, np.array([len(text.split()) + 1 for text in after])
    assert ppo["kl_per_token"] == pytest.approx((kl / lengths).mean())
    assert ppo["entropy"] == pytest.approx(1.5)
    assert ppo["entropy_low"] < 1.5 < ppo["entropy_high"]
    assert ppo["self_bleu"] > 0.5
    assert ppo["distinct_1"] == 7 / 120
    assert ppo["repeated_ngrams"] == 0


def test_one_prompt_and_one_policy_have_what_can_be_told() -> None:
    found = drift_json({"sft": trial(["It is 12."], entropy=None)}, ngram=3, seed=0)
    assert set(found) == {"sft"}
    assert "self_bleu" not in found["sft"]
    assert "entropy" not in found["sft"]
    assert found["sft"]["kl_per_token"] == 0
