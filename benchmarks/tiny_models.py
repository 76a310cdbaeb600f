"""Random models of every causal language model class in transformers, small enough for a test.

Sizes come from one table, so that a class new to transformers is usually covered as it is. What a
class wants otherwise stands in `SPECIAL`. Weights are larger than transformers draws them: logits
then differ by several nats, and a cap or scale that is left out shows.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 64
POSITIONS = 64
LOGIT_DEVIATION = 3.0
SMALL = 4_000_000
"""Largest number of parameters; a class that needs more is not tried."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "emb_dim"), 32
    ),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "decoder_ffn_dim", "d_inner"), 64
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_layers"), 2
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "attention_heads"),
        4,
    ),
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_key_value_heads": 2,
    **dict.fromkeys(("head_dim", "kv_channels", "v_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "rotary_dim": 4,
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions"),
        POSITIONS,
    ),
    **dict.fromkeys(("sliding_window", "local_window_size", "attention_window_size"), 8),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    "num_experts_per_tok": 2,
    **dict.fromkeys(
        ("n_group", "topk_group", "num_shared_experts", "n_shared_experts", "n_groups"), 1
    ),
    **dict.fromkeys(("mamba_n_groups", "first_k_dense_replace", "num_dense_layers"), 1),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "n_mamba_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    "hidden_size_per_layer_input": 8,
    "image_size": 16,
    "patch_size": 8,
    # Of the kinds that change logits, so that leaving one out is seen.
    "final_logit_softcapping": 5.0,
    "logits_scaling": 4.0,
    "lm_head_multiplier": 0.5,
    "dim_model_base": 8,
}

_HYBRID: dict[str, Any] = {"layer_types": ["linear_attention", "full_attention"]}
_ENCODERS = (
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
)
SPECIAL: dict[str, dict[str, Any]] = {
    **{name: {"is_decoder": True} for name in _ENCODERS},
    **dict.fromkeys(
        (
            *("bailing_hybrid", "granitemoehybrid", "kimi_linear", "qwen3_5_text"),
            *("qwen3_5_moe_text", "qwen3_next", "qwen4_exp_text"),
        ),
        _HYBRID,
    ),
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "cohere_compass_text": {"rope_parameters": ...},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "reformer": {
        "is_decoder": True,
        "axial_pos_embds": False,
        "num_buckets": 4,
        "attention_head_size": 8,
        "feed_forward_size": 64,
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
    },
    "roc_bert": {
        "is_decoder": True,
        "pronunciation_vocab_size": VOCABULARY,
        "shape_vocab_size": VOCABULARY,
    },
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "head_dim": ...},
    "zaya": {"num_experts_per_tok": 1},
}
"""Fields by `model_type`; `...` leaves a field of `SIZES` to the class."""


def causal_model_types() -> list[str]:
    """Return every `model_type` that AutoModelForCausalLM knows, sorted."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str, **changes: Any) -> Any:
    """Return a small configuration.

    Args:
        model_type: One of `causal_model_types`.
        changes: Fields that replace those of the tables.
    """
    from transformers import CONFIG_MAPPING

    special = SPECIAL.get(model_type, {})
    return CONFIG_MAPPING[model_type](**_sizes(CONFIG_MAPPING[model_type], special | changes))


def _sizes(config_class: Any, special: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration class, with those of the configurations inside it."""
    known = (
        {field.name for field in fields(config_class)}
        if is_dataclass(config_class)
        else set(signature(config_class).parameters)
    ) | set(getattr(config_class, "attribute_map", {}))
    chosen = {name: value for name, value in SIZES.items() if name in known}
    if "kv_lora_rank" in known:  # latent attention: every head has keys of its own
        chosen["num_key_value_heads"] = 4
    for name, inner in getattr(config_class, "sub_configs", {}).items():
        if isinstance(inner, type) and hasattr(inner, "model_type") and inner.model_type:
            within = SPECIAL.get(inner.model_type, {})
            chosen[name] = {"model_type": inner.model_type, **_sizes(inner, within)}
    return {name: value for name, value in (chosen | special).items() if value is not ...}


def tiny_model(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random causal language model in evaluation mode, in fp32.

    Args:
        model_type: One of `causal_model_types`.
        seed: Seed of the weights.
        changes: Fields of the configuration.

    Raises:
        ValueError: The model has more than `SMALL` parameters.
    """
    from transformers import AutoModelForCausalLM

    config = tiny_config(model_type, **changes)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > SMALL:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    _spread_logits(model)
    return model


@torch.no_grad()
def _spread_logits(model: Any) -> None:
    """Scale the head, and the embedding tied to it, so that logits have a deviation of nats."""
    head = model.get_output_embeddings()
    if head is None:
        return
    ids = torch.arange(3, VOCABULARY)[None, :20]
    deviation = float(model(ids, use_cache=False).logits.float().std())
    head.weight.mul_(LOGIT_DEVIATION / max(deviation, 1e-6))


def write_tokenizer(folder: Path) -> Any:
    """Write and return a tokenizer of one token per word: w3, w4 and so on."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{at}": at for at in range(3, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
