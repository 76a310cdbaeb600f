"""Model sizes: configurations of real architectures for random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama or Qwen2 decoder, named as in transformers' configurations."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    tie_word_embeddings: bool = True
    family: str = "llama"

    def config(self) -> Any:
        """Return the transformers configuration; token 0 is PAD and token 1 is EOS."""
        from transformers import LlamaConfig, Qwen2Config

        kind = {"llama": LlamaConfig, "qwen2": Qwen2Config}[self.family]
        sizes = {
            name: getattr(self, name)
            for name in Shape.__dataclass_fields__
            if name not in {"family"}
        }
        return kind(
            **sizes,
            max_position_embeddings=4096,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            attention_dropout=0.0,
        )

    @property
    def linears(self) -> list[tuple[int, int]]:
        """[in, out] of each linear layer of one decoder layer."""
        head = self.hidden_size // self.num_attention_heads
        keys = head * self.num_key_value_heads
        wide, deep = self.hidden_size, self.intermediate_size
        return [
            *((wide, wide), (wide, keys), (wide, keys), (wide, wide)),
            *((wide, deep), (wide, deep), (deep, wide)),
        ]

    @property
    def decoder_weights(self) -> int:
        """Number of weights of all linear layers except the LM head."""
        return self.num_hidden_layers * sum(a * b for a, b in self.linears)


SHAPES = {
    "minute": Shape(64, 32, 64, 1, 2, 2),
    "tiny": Shape(512, 128, 384, 4, 4, 4),
    "small": Shape(2048, 256, 768, 6, 8, 8),
    "medium": Shape(8192, 512, 1408, 8, 8, 8),
    "0.5b": Shape(151_936, 896, 4864, 24, 14, 2, family="qwen2"),
    "1.5b": Shape(151_936, 1536, 8960, 28, 12, 2, family="qwen2"),
    "7b": Shape(32_000, 4096, 14_336, 32, 32, 8, tie_word_embeddings=False),
    "8b": Shape(128_256, 4096, 14_336, 32, 32, 8, tie_word_embeddings=False),
}
"""tiny is the shape of the performance target; 0.5b and 1.5b are Qwen2.5's, 7b is Mistral's, 8b is Llama 3.1's."""
