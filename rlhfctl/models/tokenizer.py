"""Tokenizer of a run, with the recipe's chat template and a pad token distinct from EOS."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.hub import hub_errors, model_source

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection

_PAD_CANDIDATES = (
    "<|finetune_right_pad_id|>",
    "<|padding|>",
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|reserved_special_token_0|>",
    "<|fim_pad|>",
    "<unk>",
)


def load_tokenizer(section: ModelSection) -> Any:
    """Load the tokenizer of the base, with the recipe's chat template and a separate pad token.

    Raises:
        EnvironmentFault: The tokenizer cannot be loaded, or has no EOS, or no free pad token.
        RecipeError: The chat template file cannot be read.
    """
    from transformers import AutoTokenizer

    source = model_source(section)
    with hub_errors(source, "model.name_or_path"):
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    if section.chat_template is not None:
        try:
            tokenizer.chat_template = Path(section.chat_template).read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(
                f"the chat template cannot be read: {error.strerror}",
                f"model.chat_template: {section.chat_template}",
            ) from error
    if tokenizer.eos_token_id is None:
        raise EnvironmentFault(
            "the tokenizer has no EOS token, so no response could end",
            str(source),
            "Set eos_token in its tokenizer_config.json.",
        )
    _separate_pad(tokenizer, source)
    return tokenizer


def _separate_pad(tokenizer: Any, source: str) -> None:
    """Set a pad token distinct from EOS.

    A sequence classifier reads its score at the last non-pad token. With EOS as the pad it would
    read one token too early.
    """
    if tokenizer.pad_token_id not in {None, tokenizer.eos_token_id}:
        return
    vocabulary = tokenizer.get_vocab()
    for candidate in _PAD_CANDIDATES:
        if candidate in vocabulary and candidate != tokenizer.eos_token:
            tokenizer.pad_token = candidate
            return
    raise EnvironmentFault(
        "the tokenizer has no pad token besides EOS",
        source,
        "Set pad_token in a local copy's tokenizer_config.json to a token that never occurs in text.",
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a digest of vocabulary, chat template and special tokens."""
    parts = [
        repr(sorted(tokenizer.get_vocab().items())),
        tokenizer.chat_template or "",
        str(tokenizer.eos_token_id),
        str(tokenizer.pad_token_id),
        str(tokenizer.bos_token_id),
    ]
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
