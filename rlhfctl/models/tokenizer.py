"""Tokenizer of a run, with the recipe's chat template and pad token."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.hub import hub_errors, model_source, note_repository, runs_remote_code
from rlhfctl.models.padding import add_unused_row, choose_padding

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        RecipeError: The chat template cannot be read or found, the pad token is not a token, or
            the model has no embeddings for some tokens.
    """
    from transformers import AutoTokenizer

    source = model_source(section)
    with hub_errors(source, "model.name_or_path"):
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=section.revision, trust_remote_code=runs_remote_code(section)
        )
    tokenizer.chat_template = _chat_template(tokenizer.chat_template, section)
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
    with hub_errors(source, "model.name_or_path"):
        rows = embedding_rows(section, source)
    _check_embeddings(tokenizer, section, rows)
    add_unused_row(tokenizer, rows)
    return tokenizer


def _check_embeddings(tokenizer: Any, section: ModelSection, rows: int | None) -> None:
    """Refuse a tokenizer with ids beyond the model's embeddings, unless these are resized."""
    beyond = {
        index: token
        for token, index in tokenizer.get_vocab().items()
        if rows is not None and index >= rows
    }
    if not beyond or section.resize_embeddings:
        return
    first, last = min(beyond), max(beyond)
    raise RecipeError(
        f"the tokenizer has ids up to {last} ({beyond[first]!r} is {first}), but the model has "
        f"embeddings for {rows} only",
        f"model.name_or_path: {section.name_or_path}",
        "Set model.resize_embeddings: true to add and train rows for them, or use the tokenizer "
        "that the model was trained with.",
    )


def embedding_rows(section: ModelSection, source: str) -> int | None:
    """Return the number of embedding rows by the base's config; None if it does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        source, revision=section.revision, trust_remote_code=runs_remote_code(section)
    )
    note_repository(source, section.revision)
    rows: int | None = getattr(config.get_text_config(), "vocab_size", None)
    return rows


def _chat_template(own: str | dict[str, str] | None, section: ModelSection) -> str | None:
    """Return the chat template that the recipe asks for.

    Args:
        own: The tokenizer's chat template, or several by name.
        section: `chat_template` is the name of one of several, or a path.
    """
    name = section.chat_template
    several = own if isinstance(own, dict) else {}
    names = ", ".join(sorted(several))
    if name is None and not isinstance(own, dict):
        return own
    if name is None and "default" not in several:
        raise RecipeError(
            f"the tokenizer has several chat templates and none named default: {names}",
            "model.chat_template",
            "Name one of them.",
        )
    if (name or "default") in several:
        return several[name or "default"]
    try:
        return Path(str(name)).read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            "the tokenizer has no chat template of this name, and the file cannot be read: "
            f"{error.strerror}",
            f"model.chat_template: {name}",
            f"The tokenizer's templates: {names}." if names else "",
        ) from error


def tokenizer_digest(tokenizer: Any, variables: Mapping[str, Any] | None = None) -> str:
    """Return a digest of vocabulary, chat template with its variables, and special tokens."""
    parts = [
        repr(sorted(tokenizer.get_vocab().items())),
        tokenizer.chat_template or "",
        str(tokenizer.eos_token_id),
        str(tokenizer.pad_token_id),
        str(tokenizer.bos_token_id),
    ]
    if variables:
        parts.append(json.dumps(variables, sort_keys=True, default=str))
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()
