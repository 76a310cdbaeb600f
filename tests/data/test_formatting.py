"""Formatting: what a policy is trained behind is what it is sampled behind."""

from __future__ import annotations

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from rlhfctl.data.formatter import Formatter, stop_ids
from rlhfctl.data.formatting import (
    encode_comparisons,
    encode_demonstrations,
    encode_prompts,
)
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.world.model import embedded_path

EOS, IM_START, IM_END = 2, 3, 4
QUESTION = [{"role": "user", "content": "Why?"}]
ANSWER = [{"role": "assistant", "content": "Because."}]


class TestText:
    def test_prompt_and_response_are_joined_without_anything_between(self, make_tokenizer):
        formatter = Formatter(make_tokenizer())
        prompt, response = "a b", " c"
        ids = formatter.prompt_ids(prompt) + formatter.response_ids(prompt, response)
        assert formatter.tokenizer.decode(ids) == "a b c</s>"

    def test_the_prompt_begins_with_bos_where_the_tokenizer_has_one(self, make_tokenizer):
        formatter = Formatter(make_tokenizer(bos=True))
        assert formatter.tokenizer.decode(formatter.prompt_ids("ab")) == "<s>ab"
        assert formatter.tokenizer.decode(formatter.response_ids("ab", "cd")) == "cd</s>"

    def test_a_tokenizer_that_adds_eos_adds_none_to_the_prompt(self, make_tokenizer):
        formatter = Formatter(make_tokenizer(bos=True, eos_too=True))
        assert EOS not in formatter.prompt_ids("ab")
        assert formatter.response_ids("ab", "cd").count(EOS) == 1

    def test_a_tokenizer_that_begins_text_with_a_space_adds_none_inside(self, make_tokenizer):
        formatter = Formatter(make_tokenizer(space=True))
        ids = formatter.prompt_ids("ab") + formatter.response_ids("ab", "cd")
        assert formatter.tokenizer.decode(ids) == " abcd</s>"

    def test_an_eos_inside_the_response_is_text(self, make_tokenizer):
        formatter = Formatter(make_tokenizer())
        ids = formatter.response_ids("a", "one</s></s>two")
        assert formatter.tokenizer.decode(ids) == "one</s></s>two</s>"
        assert ids.count(EOS) == 1

    def test_an_eos_ends_a_response_that_was_rendered_beforehand(self, make_tokenizer):
        formatter = Formatter(make_tokenizer(), parse_special=True)
        ids = formatter.response_ids("a", "one</s></s>two")
        assert formatter.tokenizer.decode(ids) == "one</s>"

    def test_decode_leaves_out_special_tokens(self, make_tokenizer):
        formatter = Formatter(make_tokenizer())
        assert formatter.decode(formatter.response_ids("a", " two , words")) == " two , words"


class TestConversations:
    def test_the_response_is_what_the_template_adds_to_the_prompt(self, make_tokenizer, chatml):
        formatter = Formatter(make_tokenizer(chatml))
        decode = formatter.tokenizer.decode
        assert decode(formatter.prompt_ids(QUESTION)) == (
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        )
        assert decode(formatter.response_ids(QUESTION, ANSWER)) == "Because.<|im_end|>"

    def test_a_turn_ends_as_the_template_says_even_where_eos_is_another_token(
        self, make_tokenizer, chatml
    ):
        formatter = Formatter(make_tokenizer(chatml))
        assert formatter.end_id == IM_END
        assert stop_ids(formatter) == {EOS, IM_END}

    def test_a_template_without_an_ending_has_eos_added(self, make_tokenizer):
        template = (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
        formatter = Formatter(make_tokenizer(template))
        assert formatter.response_ids(QUESTION, ANSWER)[-1] == EOS
        assert stop_ids(formatter) == {EOS}

    def test_a_template_that_strips_contents_keeps_the_prompt(self, make_tokenizer, chatml):
        template = chatml.replace("m['content']", "m['content'] | trim")
        formatter = Formatter(make_tokenizer(template))
        answer = [{"role": "assistant", "content": "  So. \n"}]
        assert formatter.decode(formatter.response_ids(QUESTION, answer)) == "So."

    def test_a_template_that_changes_the_prompt_is_named(self, make_tokenizer, chatml):
        template = chatml.replace("assistant\n{% endif", "assistant\nWell: {% endif")
        formatter = Formatter(make_tokenizer(template))
        with pytest.raises(DataError, match="renders a prompt differently once a response follows"):
            formatter.response_ids(QUESTION, ANSWER)

    def test_no_template_is_a_recipe_error(self, make_tokenizer):
        with pytest.raises(RecipeError, match="no chat template"):
            Formatter(make_tokenizer()).prompt_ids(QUESTION)

    def test_what_the_template_refuses_is_said(self, make_tokenizer):
        template = "{{ raise_exception('no system turns') }}"
        with pytest.raises(DataError, match="no system turns"):
            Formatter(make_tokenizer(template)).prompt_ids(QUESTION)

    def test_the_embedded_tokenizer_gives_what_its_template_gives(self):
        tokenizer = AutoTokenizer.from_pretrained(embedded_path())
        formatter = Formatter(tokenizer)
        ids = formatter.prompt_ids(QUESTION) + formatter.response_ids(QUESTION, ANSWER)
        assert ids == tokenizer.apply_chat_template(QUESTION + ANSWER, return_dict=False)


class TestDemonstrations:
    def test_the_mask_covers_the_response_and_its_end(self, make_tokenizer, chatml):
        formatter = Formatter(make_tokenizer(chatml))
        rows = Dataset.from_list([{"prompt": QUESTION, "completion": ANSWER}])
        (row,) = encode_demonstrations(rows, formatter, 100).dataset
        masked = [
            token
            for token, counts in zip(row["input_ids"], row["completion_mask"], strict=True)
            if counts
        ]
        assert formatter.tokenizer.decode(masked) == "Because.<|im_end|>"

    def test_an_eos_in_the_prompt_does_not_change_the_mask(self, make_tokenizer):
        formatter = Formatter(make_tokenizer(), parse_special=True)
        rows = Dataset.from_list([{"prompt": "a</s>b", "completion": "c"}])
        (row,) = encode_demonstrations(rows, formatter, 100).dataset
        assert row["completion_mask"] == [0, 0, 0, 1, 1]

    def test_rows_that_are_too_long_are_counted(self, make_tokenizer):
        formatter = Formatter(make_tokenizer())
        rows = Dataset.from_list([{"prompt": "a", "completion": "b" * n} for n in (1, 2, 30)])
        encoded = encode_demonstrations(rows, formatter, 4)
        assert len(encoded.dataset) == 2
        assert encoded.report.dropped == {"longer than 4 tokens (longest 32)": 1}

    def test_rows_that_are_too_long_are_refused_where_the_recipe_says_so(self, make_tokenizer):
        rows = Dataset.from_list([{"prompt": "a", "completion": "b" * n} for n in (1, 30)])
        with pytest.raises(DataError, match="1 of 2 rows cannot be used: 1 longer than 4 tokens"):
            encode_demonstrations(rows, Formatter(make_tokenizer()), 4, 0.0)

    def test_a_set_of_which_nothing_is_left_is_an_error(self, make_tokenizer):
        rows = Dataset.from_list([{"prompt": "a", "completion": "b" * 30}])
        with pytest.raises(DataError, match=r"no row is left.*\n.*sft\.max_length"):
            encode_demonstrations(rows, Formatter(make_tokenizer()), 4)


def test_comparisons_keep_their_annotator_and_margin(make_tokenizer):
    row = {"prompt": "a", "chosen": "b", "rejected": "cd", "annotator": "ada", "margin": 0.5}
    (encoded,) = encode_comparisons(
        Dataset.from_list([row]), Formatter(make_tokenizer()), 100
    ).dataset
    assert (encoded["annotator"], encoded["margin"]) == ("ada", 0.5)
    assert (len(encoded["chosen_ids"]), len(encoded["rejected_ids"])) == (3, 4)


def test_a_comparison_is_too_long_when_either_side_is(make_tokenizer):
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c" * 9},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
    ]
    encoded = encode_comparisons(Dataset.from_list(rows), Formatter(make_tokenizer()), 5)
    assert (encoded.report.usable, encoded.longest) == (1, 11)


def test_prompts_keep_their_text(make_tokenizer, chatml):
    formatter = Formatter(make_tokenizer(chatml))
    (row,) = encode_prompts(Dataset.from_list([{"prompt": QUESTION}]), formatter, 100).dataset
    assert row == {"prompt": QUESTION, "input_ids": formatter.prompt_ids(QUESTION)}
