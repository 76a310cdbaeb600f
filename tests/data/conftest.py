"""Small tokenizers of every kind that formatting meets, made on the spot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.hub_fixtures import hub, hub_environment, outcomes

__all__ = ["hub", "hub_environment", "outcomes"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Return a maker of byte-level tokenizers: ids are the five specials, then the bytes."""

    def make(
        template: str | None = None,
        *,
        bos: bool = False,
        eos_too: bool = False,
        space: bool = False,
    ) -> PreTrainedTokenizerFast:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate([*SPECIALS, *alphabet])}
        core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
        core.decoder = decoders.ByteLevel()
        core.normalizer = normalizers.NFC()
        if bos or eos_too:
            single = ("<s> " if bos else "") + "$A" + (" </s>" if eos_too else "")
            core.post_processor = processors.TemplateProcessing(
                single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
            )
        return PreTrainedTokenizerFast(
            tokenizer_object=core,
            pad_token="<pad>",
            bos_token="<s>" if bos else None,
            eos_token="</s>",
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
            chat_template=template,
        )

    return make


@pytest.fixture
def chatml() -> str:
    """The chat template of Qwen and others: a turn ends with <|im_end|> and a line break."""
    return CHATML
