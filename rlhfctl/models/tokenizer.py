"""Tokenizer of a run, with the recipe's chat template and pad token."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.hub import hub_errors, model_source
from rlhfctl.models.padding import choose_padding

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection


def load_tokenizer(section: ModelSection) -> Any:
    """Return `read_tokenizer`, with a pad token that differs from EOS (see `models.padding`)."""
    tokenizer = read_tokenizer(section)
    padding = choose_padding(tokenizer, {tokenizer.eos_token_id})
    tokenizer.pad_token_id = padding.token_id
    return tokenizer


def read_tokenizer(section: ModelSection) -> Any:
    """Load the tokenizer of the base, with the recipe's chat template and pad token, if any.

    Raises:
        EnvironmentFault: The tokenizer cannot be loaded, or has no EOS.
        RecipeError: The chat template file cannot be read, or the pad token is not a token.
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
    if section.pad_token is not None:
        if section.pad_token not in tokenizer.get_vocab():
            raise RecipeError(
                f"{section.pad_token!r} is not a token of {section.name_or_path}",
                "model.pad_token",
                "It must be a single token of the vocabulary.",
            )
        tokenizer.pad_token = section.pad_token
    return tokenizer


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
