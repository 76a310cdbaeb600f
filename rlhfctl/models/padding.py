"""Choice of the token that fills batches, for training and in exported tokenizers.

Masks come from lengths, so training needs no pad token of its own, only an id that ends no row: a
sequence classifier of transformers reads its score at the last token that is not the pad, and every
scored row ends with a stop token.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_CANDIDATES = (
    "<|finetune_right_pad_id|>",
    "<|padding|>",
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|reserved_special_token_0|>",
    "<|fim_pad|>",
    "<unk>",
)
ADDED = "<|pad|>"
"""Token that an unused embedding row is given."""
_SPARE_NAME = re.compile(r"pad|reserved|unused|extra|dummy|placeholder|empty|blank|null", re.I)
# Bytes that occur in no UTF-8 text, as byte-level BPE and byte-fallback vocabularies name them.
_IMPOSSIBLE_BYTES = ("ÿ", "þ", "õ", "À", "Á", "<0xFF>", "<0xFE>", "<0xC0>", "<0xC1>")


@dataclass(frozen=True)
class Padding:
    """Pad tokens of a run.

    Attributes:
        token_id: Fills batches in every stage; ends no row.
        exported: Pad token of exported tokenizers; EOS if no token of the vocabulary is spare.
        exported_id: Its id.
    """

    token_id: int
    exported: str
    exported_id: int

    @property
    def is_shared(self) -> bool:
        """True if the exported pad token also ends responses."""
        return self.token_id != self.exported_id


def choose_padding(tokenizer: Any, stops: Collection[int]) -> Padding:
    """Choose a pad token that is no stop token, and one to export.

    The tokenizer's own is kept if it ends nothing. Else a reserved or added token that neither the
    tokenizer nor its chat template uses is taken. If there is none, the exported pad is EOS, and
    batches are filled with an ordinary token.

    Args:
        tokenizer: Tokenizer with an EOS; its pad token is tried first.
        stops: Tokens that end a response, including EOS.
    """
    vocabulary = tokenizer.get_vocab()
    for token in _spare_tokens(tokenizer):
        index = vocabulary.get(token)
        if index is not None and index not in stops:
            return Padding(index, token, index)
    filler = _filler(tokenizer, vocabulary, stops)
    return Padding(filler, tokenizer.eos_token, tokenizer.eos_token_id)


def add_unused_row(tokenizer: Any, rows: int | None) -> None:
    """Give a tokenizer without a spare token one for the first unused row of the embeddings.

    Some models have more rows than their tokenizer has tokens, such as Phi-2 (51,200 and 50,295).

    Args:
        tokenizer: Tokenizer with an EOS.
        rows: Embedding rows of its model; None: unknown.
    """
    vocabulary = tokenizer.get_vocab()
    spare = any(
        vocabulary.get(t) not in {None, tokenizer.eos_token_id} for t in _spare_tokens(tokenizer)
    )
    if spare or rows is None or max(vocabulary.values()) + 1 >= rows:
        return
    grown = copy.deepcopy(tokenizer)
    grown.add_special_tokens({"pad_token": ADDED}, replace_extra_special_tokens=False)
    if max(vocabulary.values()) < grown.pad_token_id < rows:
        tokenizer.add_special_tokens({"pad_token": ADDED}, replace_extra_special_tokens=False)


def _spare_tokens(tokenizer: Any) -> Iterator[str]:
    if tokenizer.pad_token is not None:
        yield tokenizer.pad_token
    yield from _CANDIDATES
    template = str(tokenizer.chat_template or "")
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token}
    added = sorted(tokenizer.added_tokens_decoder.items())
    unused = [
        token.content
        for _, token in added
        if token.special and token.content not in used and token.content not in template
    ]
    yield from sorted(unused, key=lambda name: _SPARE_NAME.search(name) is None)
    if tokenizer.unk_token not in {None, tokenizer.bos_token}:
        yield tokenizer.unk_token


def _filler(tokenizer: Any, vocabulary: dict[str, int], stops: Collection[int]) -> int:
    """Return an id that ends no row; if possible one that no text is encoded to."""
    for token in _IMPOSSIBLE_BYTES:
        index = vocabulary.get(token)
        if index is not None and tokenizer.convert_tokens_to_string([token]) == "\ufffd":
            return index
    return max((index for index in vocabulary.values() if index not in stops), default=0)
