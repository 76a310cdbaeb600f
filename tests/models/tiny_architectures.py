"""Random models of real architectures, small enough for a test: width 32, two layers."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA: dict[str, Any] = TOKENS | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
}
GPT2: dict[str, Any] = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gemma3_text": LLAMA | {"head_dim": 8},
    "gpt2": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neox": {name: size for name, size in LLAMA.items() if "key_value" not in name},
    "mpt": TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "opt": TOKENS
    | {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 64,
    },
    "biogpt": {name: size for name, size in LLAMA.items() if "key_value" not in name},
    "seed_oss": LLAMA | {"head_dim": 8},
    "cohere": LLAMA,
    "lfm2": LLAMA | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 64},
    "olmoe": LLAMA | {"num_experts": 4, "num_experts_per_tok": 2},
}
"""Arguments of transformers' configs by model type."""


def save_tiny(model_type: str, folder: Path, **changes: Any) -> Path:
    """Write a random language model; its weights are large, so that all outputs differ."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **CONFIGS[model_type] | changes)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    return folder
