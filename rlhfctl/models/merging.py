"""One adapter on its unquantised base, and the whole model that results when it is merged.

LoRA adds B A (alpha / r) to each adapted weight (Hu et al. 2021, equation 3). In a base of 4 bits
the sum would be rounded to 16 values per block, so adapters are merged into the full-precision base
only, whatever base they were trained on.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models import adapters, new_tokens
from rlhfctl.models.base import load_causal_lm, load_config
from rlhfctl.models.hub import model_source
from rlhfctl.models.scorer import load_scorer

if TYPE_CHECKING:
    from pathlib import Path

    from peft import PeftModel

    from rlhfctl.recipe.schema import ModelSection

PRECISIONS = ("float32", "bfloat16", "float16")
_NAME = "default"


def unquantised(section: ModelSection, dtype: str) -> ModelSection:
    """Return a model section without quantisation, in another dtype.

    Args:
        section: Model section of a recipe.
        dtype: One of `PRECISIONS`.
    """
    return section.model_copy(update={"quantization": "none", "dtype": dtype})


def stored_dtype(section: ModelSection) -> str:
    """Return the dtype that the base's config names, one of `PRECISIONS`; float32 if none."""
    config = load_config(section, model_source(section))
    name = str(config.dtype or config.get_text_config().dtype or "").removeprefix("torch.")
    return name if name in PRECISIONS else "float32"


def load_language_model(section: ModelSection, folder: Path | None) -> Any:
    """Load a policy: the base, the base with an adapter, or a whole model.

    Args:
        section: Model section; its quantisation and dtype are those of the base.
        folder: Adapter or whole model; None: the base.

    Returns:
        A PeftModel for an adapter, else a causal language model. In evaluation mode.
    """
    from transformers import GenerationConfig

    if folder is not None and not adapters.is_adapter(folder):
        model = load_causal_lm(section, str(folder))
    else:
        model = load_causal_lm(section)
        new_tokens.resize(model, new_tokens.new_token_ids(section))
    # The model's own sampling defaults (top_p, repetition penalty) must not apply.
    model.generation_config = GenerationConfig()
    if folder is not None and adapters.is_adapter(folder):
        model = _with_adapter(model, section, folder, "CAUSAL_LM", None)
    return model.requires_grad_(requires_grad=False).eval()


def load_reward_model(section: ModelSection, folder: Path, pad_token_id: int) -> Any:
    """Load a reward model: the base with an adapter and a score head, or a whole model.

    Args:
        section: Model section; its quantisation and dtype are those of the base.
        folder: Adapter or whole model of `train-rm`.
        pad_token_id: Pad token in batches.

    Returns:
        A PeftModel for an adapter, else a sequence classifier; its logits are raw scores.
    """
    if not adapters.is_adapter(folder):
        whole = load_scorer(section, pad_token_id, str(folder))
        return whole.requires_grad_(requires_grad=False).eval()
    scorer = load_scorer(section, pad_token_id)
    new_tokens.resize(scorer, new_tokens.new_token_ids(section))
    model = _with_adapter(scorer, section, folder, "SEQ_CLS", scorer.head_name)
    return model.requires_grad_(requires_grad=False).eval()


def merged(model: Any) -> Any:
    """Return the whole model of a PeftModel with its adapter merged; other models as they are.

    peft adds the float32 product to the base's weight and rounds once, to the dtype of the base.

    Raises:
        EnvironmentFault: The base is quantised.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    base = model.get_base_model()
    if getattr(base, "is_quantized", False):
        raise EnvironmentFault(
            "an adapter is merged into an unquantised base only", hint="load it unquantised"
        )
    return model.merge_and_unload(safe_merge=True)


def _with_adapter(
    base: Any, section: ModelSection, folder: Path, task_type: str, head: str | None
) -> PeftModel:
    """Return a base with an adapter, its score head and its new tokens' embedding rows."""
    from peft import get_peft_model

    config = deepcopy(adapters.read_config(folder))
    config.task_type, config.inference_mode, config.lora_dropout = task_type, False, 0.0
    config.modules_to_save = None if head is None else [head]
    config.trainable_token_indices = None  # new tokens' rows become part of the base
    weights = adapters.read_weights(folder)
    if head is None:
        for name in adapters.HEAD_KEYS:
            weights.pop(name, None)
    new_tokens.take_rows(base, weights, new_tokens.new_token_ids(section))
    model = get_peft_model(base, config, adapter_name=_NAME)
    adapters.set_weights(model, weights, _NAME, folder)
    return model


def logits_at_last_token(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """Return the outputs of a model at the last token of each row, alone in its batch.

    Args:
        model: Causal language model or sequence classifier.
        rows: Token ids, one list per row.

    Returns:
        [rows, V] or [rows, 1], in fp32 on the CPU.
    """
    outputs = []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row], device=model.device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            last = logits if logits.ndim == 2 else logits[:, -1]
            outputs.append(last.float().cpu()[0])
    return torch.stack(outputs)
