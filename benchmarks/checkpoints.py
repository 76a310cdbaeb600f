"""Random checkpoints on disk, from which every trainer starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.shapes import SHAPES

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.work import Work

RANK, ALPHA = 16, 32
PROMPTS = 256


def make(work: Work, folder: Path) -> None:
    """Write base, SFT and reward checkpoints, a tokenizer and prompts, unless they exist.

    ``base`` is a causal language model with its tokenizer, ``scorer`` the same decoder with a
    score head. With LoRA, ``sft`` and ``rm`` are adapters on ``base`` in the format of rlhfctl's
    stages, otherwise full models.

    Args:
        work: Shape, dtype, lengths and seed.
        folder: Output folder, created if missing.
    """
    done = folder / "work.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == _identity(work):
        return
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = SHAPES[work.shape].vocab_size
    generator = torch.Generator().manual_seed(work.seed)
    prompts = torch.randint(2, vocabulary, (PROMPTS, work.prompt_length), generator=generator)
    (folder / "prompts.json").write_text(json.dumps(prompts.tolist()), encoding="utf-8")
    write_tokenizer(vocabulary, folder / "base")
    _write_models(work, folder)
    done.write_text(json.dumps(_identity(work)), encoding="utf-8")


def _identity(work: Work) -> dict[str, Any]:
    return {
        name: getattr(work, name) for name in ("shape", "lora", "dtype", "prompt_length", "seed")
    }


def write_tokenizer(vocabulary: int, folder: Path) -> None:
    """Write a tokenizer of `vocabulary` words, with token 0 as PAD and token 1 as EOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1} | {f"w{index}": index for index in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    ).save_pretrained(folder)


def _write_models(work: Work, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from rlhfctl.models.heads import ScoreNormalization, initialise_score_head

    torch.manual_seed(work.seed)
    config = SHAPES[work.shape].config()
    config.num_labels = 1
    # Use a GPU if available: drawing eight billion weights takes minutes on a CPU.
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, work.dtype))
        scorer = AutoModelForSequenceClassification.from_config(
            config, dtype=getattr(torch, work.dtype)
        )
    base.save_pretrained(folder / "base")
    scorer.model.load_state_dict(base.model.state_dict())
    head = torch.nn.Linear(config.hidden_size, 1, bias=False)
    initialise_score_head(head, work.seed)
    with torch.no_grad():
        scorer.score.weight.copy_(head.weight)
    scorer.save_pretrained(folder / "scorer")
    if work.lora:
        _write_adapters(folder, head)
    else:
        base.save_pretrained(folder / "sft")
        scorer.save_pretrained(folder / "rm")
    ScoreNormalization(0.0, 1.0, PROMPTS).save(folder / "rm")


def _write_adapters(folder: Path, head: torch.nn.Linear) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    from rlhfctl.models import adapters

    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    name = str(folder / "base")
    adapters.save_adapter(weights, config, folder / "sft", name, "CAUSAL_LM")
    score = {adapters.head_key("score", "weight"): head.weight}
    adapters.save_adapter(weights | score, config, folder / "rm", name, "SEQ_CLS")
