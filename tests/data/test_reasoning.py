"""Prompts that end in a reasoning block, by the template that DeepSeek-R1's distilled models have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trl
from datasets import Dataset

from rlhfctl.data.formatter import Formatter
from rlhfctl.data.formatting import encode_comparisons, encode_demonstrations, encode_prompts
from rlhfctl.data.reasoning import continued
from rlhfctl.data.rendering import RenderingError

R1 = (Path(trl.__file__).parent / "chat_templates" / "deepseek_r1_distill.jinja").read_text()
BAR = "\N{FULLWIDTH VERTICAL LINE}"
END = f"<{BAR}end▁of▁sentence{BAR}>"
QUESTION = [{"role": "user", "content": "Why?"}]
LATER = [
    *QUESTION,
    {"role": "assistant", "content": "<think>\nOld.\n</think>\n\nEarlier."},
    {"role": "user", "content": "And?"},
]
FULL = "<think>\nHm.\n</think>\n\nSo."


@pytest.fixture
def tokenizer(make_tokenizer):
    tokenizer = make_tokenizer(R1)
    tokenizer.add_tokens(["<think>", "</think>"])
    marks = [f"<{BAR}{role}{BAR}>" for role in ("User", "Assistant")]
    tokenizer.add_special_tokens({"additional_special_tokens": marks, "eos_token": END})
    return tokenizer


def answer(content, **fields):
    other = {"other_fields": json.dumps(fields)} if fields else {}
    return [{"role": "assistant", "content": content, **other}]


@pytest.mark.parametrize("prompt", [QUESTION, LATER])
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(FULL), "Hm.\n</think>\n\nSo."),
        (answer(FULL.removeprefix("<think>\n")), "Hm.\n</think>\n\nSo."),
        (answer("<think>Hm.</think>So."), "Hm.</think>So."),
        (answer("<think>\n\n</think>\n\nSo."), "\n</think>\n\nSo."),
        (answer("<think>\na </think> b\n</think>\n\nSo."), "a </think> b\n</think>\n\nSo."),
        (answer("So.", reasoning_content="Hm."), "Hm.\n</think>\n\nSo."),
        (answer("So."), "\n</think>\n\nSo."),
        (answer("<think>\nHm.\n</think>\n\n"), "Hm.\n</think>\n\n"),
    ],
)
def test_the_answer_goes_on_where_the_prompt_ends(prompt, response, expected, tokenizer):
    formatter = Formatter(tokenizer)
    (pair,) = formatter.each_pair([(prompt, response)])
    assert not isinstance(pair, RenderingError)
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    assert asked.endswith(f"<{BAR}Assistant{BAR}><think>\n")
    assert pair.prompt == formatter.prompt_ids(prompt)
    assert tokenizer.decode(pair.prompt) == asked
    assert tokenizer.decode(pair.response) == expected + END
    said = pair.notes == ("have no reasoning; their answer follows an empty <think> block",)
    assert said == (response == answer("So."))
    assert said or pair.notes == ()


def test_rows_masks_and_prompts_of_all_stages_agree(tokenizer):
    formatter = Formatter(tokenizer)
    prompt = formatter.prompt_ids(QUESTION)
    asked = encode_prompts(Dataset.from_list([{"prompt": QUESTION}]), formatter, 500).dataset
    assert asked["input_ids"][0] == prompt
    row = {"prompt": QUESTION, "completion": answer(FULL)}
    shown = encode_demonstrations(Dataset.from_list([row]), formatter, 500).dataset[0]
    place = len(prompt)
    assert shown["input_ids"][:place] == prompt
    assert shown["completion_mask"] == [0] * place + [1] * (len(shown["input_ids"]) - place)
    sides = {"chosen": answer(FULL), "rejected": answer("No.")}
    compared = encode_comparisons(
        Dataset.from_list([{"prompt": QUESTION} | sides]), formatter, 500
    ).dataset[0]
    assert compared["prompt_length"] == place
    for side in ("chosen_ids", "rejected_ids"):
        assert compared[side][:place] == prompt
        close = tokenizer.convert_tokens_to_ids("</think>")
        assert compared[side].count(close) == 1
    assert compared["chosen_ids"] == shown["input_ids"]


def test_earlier_answers_count_without_their_reasoning(tokenizer):
    row = {"prompt": LATER, "completion": answer(FULL)}
    encoded = encode_demonstrations(
        Dataset.from_list([row]), Formatter(tokenizer), 500, assistant_turns="all"
    )
    (shown,) = encoded.dataset
    trained = [
        token
        for token, counts in zip(shown["input_ids"], shown["completion_mask"], strict=True)
        if counts
    ]
    assert tokenizer.decode(trained).strip() == f"Earlier.{END}Hm.\n</think>\n\nSo.{END}"


@pytest.mark.parametrize(
    ("start", "whole", "content", "expected"),
    [
        # a template that leaves the content as it is
        ("Q<think>\n", "Q<think>Hm.</think>So.E", "<think>Hm.</think>So.", "Hm.</think>So.E"),
        # one that writes an empty block itself, and one that writes none
        ("Q<think>\n", "Q<think></think>So.E", "So.", "</think>So.E"),
        ("Q[THINK]", "QSo.E", "Hm.[/THINK]So.", "Hm.[/THINK]So.E"),
        ("Q<think></think>\n", "QSo.E", "So.", "So.E"),
        # reasoning that is switched off, and other changes
        ("Q<think></think>\n", "QHm.</think>So.E", "Hm.</think>So.", None),
        ("Q<think>\n", "RSo.E", "So.", None),
        ("Q", "So.E", "So.", None),
    ],
)
def test_other_templates(start, whole, content, expected):
    joined = continued(start, whole, {"role": "assistant", "content": content})
    assert (joined and joined.whole) == (None if expected is None else start + expected)
