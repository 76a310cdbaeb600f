"""Loading of the base model in the recipe's precision, quantised on request."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models import load_progress
from rlhfctl.models.device import device, effective_dtype, effective_quantization
from rlhfctl.models.dropout import disable_dropout, silence_config
from rlhfctl.models.finite_weights import require_finite_model
from rlhfctl.models.hub import hub_errors, model_source, note_repository, runs_remote_code
from rlhfctl.models.liger import use_liger_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.recipe.schema import ModelSection

HEAD_MODULES = ("lm_head", "embed_out", "output_projection", "score", "classifier")
"""Modules that are never quantised or adapted: the LM head and the score or value head."""


def quantization_config(section: ModelSection, heads: Sequence[str] = HEAD_MODULES) -> Any:
    """Return the configuration of bitsandbytes; None without quantization.

    Args:
        section: Quantization and precision.
        heads: Names of modules that stay in full precision.
    """
    from transformers import BitsAndBytesConfig

    kind = effective_quantization(section)
    if kind == "none":
        return None
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(heads))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=effective_dtype(section),
        llm_int8_skip_modules=list(heads),
    )


def load_config(section: ModelSection, source: str) -> Any:
    """Return the config of a model without dropout and without outputs for a router's loss.

    TRL's SFT asks a mixture of experts for those, and saves that in the config of whole weights;
    transformers then fails to generate from padded prompts.
    """
    from transformers import AutoConfig

    with hub_errors(source, "model.name_or_path"):
        config = AutoConfig.from_pretrained(
            source, revision=section.revision, trust_remote_code=runs_remote_code(section)
        )
    note_repository(source, section.revision)
    silence_config(config)
    if hasattr(config.get_text_config(), "output_router_logits"):
        config.get_text_config().output_router_logits = False
    return config


def load_weights(
    model_class: Any,
    source: str,
    section: ModelSection,
    config: Any,
    dtype: torch.dtype | None = None,
    **extra: Any,
) -> Any:
    """Load a model on this process's device, without dropout.

    Args:
        model_class: Class with `from_pretrained`.
        source: Folder or hub id.
        section: Precision and attention.
        config: Config of the model.
        dtype: Dtype of the weights; None: the section's.
        extra: Further arguments of `from_pretrained`.

    Returns:
        What `from_pretrained` returns: the model, or a pair that starts with it.

    Raises:
        CheckpointError: A weight is NaN or infinite.
        EnvironmentFault: The model cannot be loaded, or there are no Liger kernels for it here.
    """
    arguments: dict[str, Any] = {
        "config": config,
        "revision": section.revision,
        "trust_remote_code": runs_remote_code(section),
        "dtype": dtype or effective_dtype(section),
        "use_safetensors": True,
        **extra,
    }
    if section.attn_implementation is not None:
        arguments["attn_implementation"] = section.attn_implementation
    quantization = quantization_config(section)
    if quantization is not None:
        arguments["quantization_config"] = quantization
    # Load directly onto the device: a quantised model cannot be moved afterwards.
    arguments["device_map"] = {"": device()}
    label = "the embedded model" if section.name_or_path == "embedded" else Path(source).name
    with hub_errors(source, "model.name_or_path"), load_progress.published(label) as progress:
        loaded = model_class.from_pretrained(source, **arguments, **progress)
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    require_finite_model(model, source, section.revision, quantized=quantization is not None)
    disable_dropout(model)
    keep_backward(model)
    if section.use_liger_kernel:
        use_liger_kernels(model)
    return loaded


def keep_backward(model: Any) -> None:
    """Prevent bitsandbytes from repacking 4-bit weights on CPUs with AVX512-BF16.

    The first forward pass in evaluation mode would convert them to an inference format that
    computes in bfloat16 and has no backward pass. Later gradients would be silently wrong.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_causal_lm(
    section: ModelSection, source: str | None = None, dtype: torch.dtype | None = None
) -> Any:
    """Load a causal language model on this process's device.

    Args:
        section: Precision and attention; also the model if `source` is None.
        source: Folder to load instead, such as a fully fine-tuned checkpoint.
        dtype: Dtype of the weights; None: the section's.
    """
    from transformers import AutoModelForCausalLM

    folder = source or model_source(section)
    config = load_config(section, folder)
    return load_weights(AutoModelForCausalLM, folder, section, config, dtype)


def enable_gradient_checkpointing(model: Any) -> None:
    """Let a model of transformers recompute its activations in the backward pass.

    Raises:
        EnvironmentFault: The architecture does not support it.
    """
    require_gradient_checkpointing(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})


def require_gradient_checkpointing(model: Any) -> None:
    """Check that a model's architecture supports gradient checkpointing.

    Raises:
        EnvironmentFault: It does not.
    """
    if not model.supports_gradient_checkpointing:
        raise EnvironmentFault(
            f"{type(model).__name__} does not support gradient checkpointing",
            "gradient_checkpointing",
            "Set it to false in sft, reward_model and ppo.",
        )


def decoder_name(model: Any) -> str:
    """Return the attribute of a transformers model's decoder, which outputs hidden states.

    Raises:
        EnvironmentFault: The architecture has no separate decoder.
    """
    for name in (model.base_model_prefix, "model", "transformer"):
        if isinstance(getattr(model, name, None), torch.nn.Module):
            return str(name)
    raise EnvironmentFault(
        f"{type(model).__name__} has no decoder under its head, so roles cannot share it",
        "model.name_or_path",
        "Use a decoder-only causal language model.",
    )


def decoder_of(model: Any) -> torch.nn.Module:
    """Return the decoder of a transformers model, below any head; see `decoder_name`."""
    decoder: torch.nn.Module = getattr(model, decoder_name(model))
    return decoder


def base_fingerprint(model: Any) -> str:
    """Return a digest that identifies the base independently of its dtype.

    It covers the architecture's sizes and a corner of the embedding, rounded to bfloat16;
    embeddings are never quantised.
    """
    config = model.config.get_text_config()
    sizes = [
        config.model_type,
        *(
            getattr(config, name, None)
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
        ),
    ]
    embedding = model.get_input_embeddings().weight
    corner = embedding[:64, :64].detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8)
    digest = hashlib.sha256(repr(sizes).encode())
    digest.update(corner.numpy().tobytes())
    return digest.hexdigest()
