"""Models with one output per sequence or token on the decoder of any causal language model.

transformers has no classifier for many architectures, and names, places and computes the head
differently in those it has. Here the head is always one linear layer in fp32 on the decoder's last
states. Names of weights are those of transformers' own class where its layout is the same, so that
a saved folder loads there.
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rlhfctl.errors import CheckpointError
from rlhfctl.models.base import decoder_name, decoder_of, load_config, load_weights
from rlhfctl.models.heads import linear_float32
from rlhfctl.models.hub import model_source, runs_remote_code

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection

_CAUSAL_SUFFIX = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|WithLMHead)$")


class Scorer:
    """Mixin that puts a head of one output on a decoder; see `scorer_class`.

    Attributes:
        causal_class: The language model whose decoder is used.
        head_name: Attribute of the head.
        per_token: One output per token rather than per sequence.
        has_own_class: Whether transformers has a class with the same weights.
    """

    causal_class: type[Any]
    base_model_prefix: str
    head_name: str
    per_token: bool
    has_own_class: bool

    def __init__(self, config: Any) -> None:
        config.num_labels = 1
        super().__init__(config)  # type: ignore[call-arg]
        decoder = decoder_of(self.causal_class._from_config(config))
        setattr(self, self.base_model_prefix, decoder)
        width = config.get_text_config().hidden_size
        setattr(self, self.head_name, nn.Linear(width, 1, bias=self.per_token))
        self.post_init()  # type: ignore[attr-defined]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **rest: Any,
    ) -> Any:
        """Return logits [B, 1], read at each row's last token, or [B, T, 1] if `per_token`.

        Args:
            input_ids: Token ids [B, T].
            attention_mask: [B, T], 1 at tokens. None: the last token is the last that is not
                `config.pad_token_id`, or the last of all if there is no such id.
            inputs_embeds: [B, T, H], instead of `input_ids`.
            rest: Further arguments of the decoder.
        """
        from transformers.modeling_outputs import (
            SequenceClassifierOutputWithPast,
            TokenClassifierOutput,
        )

        inputs = {"input_ids": input_ids, "inputs_embeds": inputs_embeds} | rest
        decoder = getattr(self, self.base_model_prefix)
        states = decoder(
            attention_mask=attention_mask,
            **{name: value for name, value in inputs.items() if value is not None},
        )[0]
        logits = linear_float32(getattr(self, self.head_name), states)
        if self.per_token:
            return TokenClassifierOutput(logits=logits)
        rows, width = states.shape[:2]
        pad = self.config.get_text_config().pad_token_id  # type: ignore[attr-defined]
        if attention_mask is not None:
            seen = attention_mask != 0
        elif input_ids is not None and pad is not None:
            seen = input_ids != pad
        else:
            seen = torch.ones(rows, width, dtype=torch.bool, device=states.device)
        last = (torch.arange(width, device=seen.device) * seen).argmax(-1)
        return SequenceClassifierOutputWithPast(logits=logits[torch.arange(rows), last])


def head_of(model: Any) -> nn.Linear:
    """Return the head of a scorer."""
    head: nn.Linear = getattr(model, model.head_name)
    return head


def _own_head(causal: Any, mapping: Any, *, bias: bool) -> tuple[str, str] | None:
    """Return class and head's name of transformers' classifier; None if its layout is another.

    Args:
        causal: Language model on the meta device.
        mapping: transformers' mapping from configs to classifiers.
        bias: Whether the head must have a bias.
    """
    if type(causal.config) not in mapping:
        return None
    own_class = mapping[type(causal.config)]
    with torch.device("meta"):
        own = own_class._from_config(causal.config)
    weighted = {
        name: child for name, child in own.named_children() if any(True for _ in child.parameters())
    }
    decoder = weighted.pop(decoder_name(causal), None)
    if type(decoder) is not type(decoder_of(causal)) or len(weighted) != 1:
        return None
    ((name, head),) = weighted.items()
    fits = isinstance(head, nn.Linear) and (head.bias is not None) == bias
    return (own_class.__name__, name) if fits else None


def scorer_class(config: Any, *, per_token: bool = False, trust_remote_code: bool = False) -> Any:
    """Return a PreTrainedModel class with one output on the decoder of a causal language model.

    Args:
        config: Config of the language model, or its folder or hub id.
        per_token: One output per token (token classification) rather than per sequence.
        trust_remote_code: Whether code of the model's repository may run.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = (
        AutoConfig.from_pretrained(config, trust_remote_code=trust_remote_code)
        if isinstance(config, str)
        else deepcopy(config)
    )
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    kind = "ForTokenClassification" if per_token else "ForSequenceClassification"
    own = _own_head(causal, _mapping(per_token=per_token), bias=per_token)
    if own is None:
        taken = type(causal.config) in _mapping(per_token=per_token)
        stem = _CAUSAL_SUFFIX.sub("", type(causal).__name__)
        name, head = stem + ("Scorer" if taken else kind), "score"
    else:
        name, head = own
    causal_class: Any = type(causal)
    prefix = decoder_name(causal)
    return _class(causal_class, prefix, name, head, per_token, has_own_class=own is not None)


def _mapping(*, per_token: bool) -> Any:
    from transformers.models.auto import modeling_auto

    return (
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
        if per_token
        else modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    )


@cache
def _class(
    causal: Any, prefix: str, name: str, head: str, per_token: bool, *, has_own_class: bool
) -> Any:
    from transformers import GenerationMixin, PreTrainedModel

    parent = next(
        base
        for base in causal.__mro__
        if issubclass(base, PreTrainedModel) and not issubclass(base, GenerationMixin)
    )
    attributes = {
        # As in transformers, which reads weights of classes from elsewhere differently.
        "__module__": causal.__module__,
        "base_model_prefix": prefix,
        "config_class": causal.config_class,
        "causal_class": causal,
        "head_name": head,
        "per_token": per_token,
        "has_own_class": has_own_class,
    }
    return type(name, (Scorer, parent), attributes)


def load_scorer(
    section: ModelSection,
    pad_token_id: int,
    source: str | None = None,
    *,
    per_token: bool = False,
    dtype: torch.dtype | None = None,
) -> Any:
    """Load the base with a head of one output, in fp32.

    Args:
        section: Precision and attention; also the model if `source` is None.
        pad_token_id: Pad token of the saved config, for transformers' own classes.
        source: Folder to load instead: a language model or a saved scorer.
        per_token: One value per token (token classification) rather than per sequence.
        dtype: Dtype of the weights; None: the section's.

    Raises:
        CheckpointError: Weights of the decoder are missing.
    """
    from transformers import logging

    folder = source or model_source(section)
    config = load_config(section, folder)
    model_class = scorer_class(
        config, per_token=per_token, trust_remote_code=runs_remote_code(section)
    )
    text_config = (
        config if isinstance(config, model_class.config_class) else config.get_text_config()
    )
    verbosity = logging.get_verbosity()
    # Suppress the warning that the head is new and lm_head unused: both are intended.
    logging.set_verbosity_error()
    try:
        model, report = load_weights(
            model_class, folder, section, text_config, dtype, output_loading_info=True
        )
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(
        key for key in report["missing_keys"] if not key.startswith(f"{model_class.head_name}.")
    )
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights are missing (such as {missing[0]})",
            folder,
            "Use a folder of a causal language model, or one written by rlhfctl.",
        )
    model.config.get_text_config().pad_token_id = pad_token_id
    head_of(model).float()
    return model
