"""Tiny sequence classifiers of another base, vocabulary and template, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} "
    "[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
_TEXT = [
    "What is two plus two? It is four, of course. The answer to your question is blue.",
    "user assistant system [INST] [/INST] Paris is the capital of France; hello there, friend!",
]
_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_labels": 1,
}


def _tokenizer(
    control: list[str], size: int, bos: str | None = None, **names: str
) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE; it starts texts with `bos`, if there is one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        names["bos_token"] = bos
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, scale: float = 8.0
) -> Path:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)  # scores that differ visibly
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chatml(
    folder: Path, dtype: torch.dtype = torch.float32, scale: float = 8.0, **changes: int
) -> Path:
    """Qwen 3 with a ChatML template, no BOS, and a pad token of its own.

    Args:
        scale: Factor of the weights: the smaller, the less rounding matters.
    """
    torch.manual_seed(1)
    tokenizer = _tokenizer(
        ["<|pad|>", "<|im_start|>", "<|im_end|>"], 320, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    tokenizer.chat_template = CHATML
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        head_dim=8,
        num_key_value_heads=1,
        pad_token_id=0,
        max_position_embeddings=256,
        **_SIZES | changes,
    )
    return _save(Qwen3ForSequenceClassification(config).to(dtype), tokenizer, folder, scale)


def inst(folder: Path) -> Path:
    """Llama with a BOS that both the tokenizer and the template write, and no pad token."""
    torch.manual_seed(2)
    tokenizer = _tokenizer(["<unk>", "<s>", "</s>"], 290, bos="<s>", eos_token="</s>")
    tokenizer.chat_template = INST
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **_SIZES)
    return _save(LlamaForSequenceClassification(config), tokenizer, folder)


def encoder(folder: Path) -> Path:
    """BERT, which reads plain text and has no template."""
    torch.manual_seed(3)
    tokenizer = _tokenizer(["[PAD]", "[CLS]", "[SEP]"], 290, cls_token="[CLS]", sep_token="[SEP]")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.pad_token = "[PAD]"
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **_SIZES)
    return _save(BertForSequenceClassification(config), tokenizer, folder)


def language_model(folder: Path) -> Path:
    """A causal language model, which has no score."""
    tokenizer = _tokenizer(["<unk>", "<s>", "</s>"], 290, bos="<s>", eos_token="</s>")
    sizes = {name: size for name, size in _SIZES.items() if name != "num_labels"}
    return _save(LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)), tokenizer, folder)


def changed(folder: Path, **config: object) -> Path:
    """Change keys of a model's config.json; None removes one."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | config
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder
