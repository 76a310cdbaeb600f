"""Construction of the world's tokenizer: bytes, and every word of the world as one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.world import lexicon
from rlhfctl.world.documents import ASSISTANT, CHECK, END, PAD, USER, sample_documents
from rlhfctl.world.streams import stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}"
    "{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIALS = (PAD, END, USER, ASSISTANT)
MAX_LENGTH = 512
_SAMPLES = 20_000


def world_text() -> list[str]:
    """All words of the lexicon and a fixed sample of documents, without special tokens."""
    rng = stream("tokenizer")
    texts = [
        " ".join(words)
        for words in (
            lexicon.NAMES,
            lexicon.CITIES,
            lexicon.COLOURS,
            lexicon.THINGS,
            lexicon.GOODS,
            lexicon.LIST_WORDS,
            lexicon.DAYS,
            lexicon.MONTHS,
            lexicon.NUMBERS,
            *lexicon.OPPOSITES,
        )
    ] + [CHECK]
    for _ in range(_SAMPLES):
        for document in sample_documents(rng):
            text = "".join(segment.text for segment in document)
            for special in SPECIALS:
                text = text.replace(special, "\n")
            texts.extend(text.split("\n"))
    return [text for text in texts if text]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer: byte-level BPE whose vocabulary is the bytes and the world's words.

    As in Llama 3, a whole word in the vocabulary needs no merges (`ignore_merges`); other text
    falls back to bytes. A space is added before the first word of a text or turn, so that a word
    is the same token everywhere, and removed in decoding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = {piece for text in world_text() for piece, _ in splitter.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ordered = [*SPECIALS, *alphabet, *sorted(words - set(alphabet))]
    vocabulary = {token: index for index, token in enumerate(ordered)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(list(SPECIALS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
