import json

import pytest
from transformers import AutoTokenizer

from rlhfctl.world import corpora, lexicon
from rlhfctl.world.model import embedded_path
from rlhfctl.world.responses import pieces
from rlhfctl.world.tasks import STEPS
from rlhfctl.world.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


def test_the_shipped_tokenizer_is_the_one_the_code_builds(tokenizer, tmp_path):
    build_tokenizer().save_pretrained(tmp_path)
    shipped = json.loads((embedded_path() / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8")) == shipped
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize(
    "words",
    [
        lexicon.NAMES,
        lexicon.CITIES,
        lexicon.COLOURS,
        lexicon.THINGS,
        lexicon.GOODS,
        lexicon.LIST_WORDS,
        lexicon.DAYS,
        lexicon.MONTHS,
        lexicon.NUMBERS,
        sum(lexicon.OPPOSITES, ()),
    ],
)
def test_every_word_of_the_world_is_one_token(tokenizer, words):
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in words)


def test_texts_of_the_world_are_as_many_tokens_as_words_and_marks_and_come_back(tokenizer):
    for row in corpora.demonstrations(500, 9) + corpora.demonstrations(100, 9, STEPS):
        for text in (row["prompt"][0]["content"], row["completion"][0]["content"]):
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert len(ids) == len(pieces(text))
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["Grüße aus Köln!", "a\nb  c\td", "<b>12345</b>", "日本"])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_word_is_the_same_token_after_a_special_token(tokenizer):
    rendered = tokenizer.encode("<|assistant|>Ben lives in Rome.", add_special_tokens=False)
    assert rendered[1:] == tokenizer.encode("Ben lives in Rome.", add_special_tokens=False)


def test_the_chat_template_renders_turns_and_marks_what_the_assistant_says(tokenizer):
    messages = [
        {"role": "user", "content": "What is 7 plus 5?"},
        {"role": "assistant", "content": "It is 12."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|user|>What is 7 plus 5?<|end|><|assistant|>It is 12.<|end|>"
    asked = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
    assert text.startswith(asked)
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [
        token
        for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if mask
    ]
    assert tokenizer.decode(marked) == "It is 12.<|end|>"


def test_pad_and_end_differ(tokenizer):
    assert tokenizer.pad_token == "<|pad|>"
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
