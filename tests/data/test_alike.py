"""A prompt and its response have the same ids in every stage: what SFT learns, what the reward model
reads, what PPO samples after and scores."""

import pytest
from datasets import Dataset

from rlhfctl.data.formatter import Formatter, stop_ids
from rlhfctl.data.formatting import (
    encode_comparisons,
    encode_demonstrations,
    encode_prompts,
)
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection

QUESTION, ANSWER, WORSE = "How do I boil an egg?", "For eight minutes.", "No idea."


def turn(role, content):
    return [{"role": role, "content": content}]


FORMS = {
    "text": (QUESTION, " " + ANSWER, " " + WORSE),
    "messages": (turn("user", QUESTION), turn("assistant", ANSWER), turn("assistant", WORSE)),
}


@pytest.fixture(scope="module")
def formatter():
    return Formatter(load_tokenizer(ModelSection()))


@pytest.mark.parametrize("form", FORMS)
def test_every_stage_sees_the_same_ids(formatter, form):
    prompt, answer, worse = FORMS[form]
    ask = encode_prompts(Dataset.from_list([{"prompt": prompt}]), formatter, 256)
    teach = encode_demonstrations(
        Dataset.from_list([{"prompt": prompt, "completion": answer}]), formatter, 256
    )
    compare = encode_comparisons(
        Dataset.from_list([{"prompt": prompt, "chosen": answer, "rejected": worse}]), formatter, 256
    )
    asked = ask.dataset[0]["input_ids"]
    taught, compared = teach.dataset[0], compare.dataset[0]
    response = formatter.response_ids(prompt, answer)
    assert taught["input_ids"] == asked + response == compared["chosen_ids"]
    assert compared["rejected_ids"][: len(asked)] == asked
    assert taught["completion_mask"] == [0] * len(asked) + [1] * len(response)
    for ids in (response, compared["rejected_ids"]):
        assert ids[-1] in stop_ids(formatter)
        assert formatter.tokenizer.pad_token_id not in ids


@pytest.mark.parametrize("form", FORMS)
def test_a_response_ends_in_what_ppo_takes_for_an_end_and_has_it_once(formatter, form):
    prompt, answer, _ = FORMS[form]
    response = formatter.response_ids(prompt, answer)
    assert [token in stop_ids(formatter) for token in response] == [False] * (len(response) - 1) + [
        True
    ]
    assert formatter.tokenizer.pad_token_id not in stop_ids(formatter)
