"""The shipped recipes, with what each is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.recipe.load import load_recipe, shipped_recipes

if TYPE_CHECKING:
    from pathlib import Path

_GPU_MEMORY: dict[str, int] = {
    "base": 0,
    "overoptimisation": 0,
    "steps": 0,
    "smollm2-135m": 0,
    "qwen2.5-0.5b-hh-rlhf": 16,
    "llama-3.1-8b-qlora-ultrafeedback": 24,
    "tldr-pythia-1b": 24,
    "tldr-pythia-2.8b": 40,
    "tldr-pythia-6.9b": 80,
}
"""Memory in GB of the GPU that each shipped recipe is meant for; 0: two CPU cores suffice."""


@dataclass(frozen=True)
class ShippedRecipe:
    """A shipped recipe.

    Attributes:
        name: Name by which commands take it.
        path: Its file.
        model: Base model.
        quantization: Quantization of the base model.
        data: Its data sources, without repetition.
        gpu_memory_gb: Memory in GB of the GPU that it is meant for; 0 if it needs none.
    """

    name: str
    path: Path
    model: str
    quantization: str
    data: tuple[str, ...]
    gpu_memory_gb: int


def describe_shipped() -> list[ShippedRecipe]:
    """Return the shipped recipes, those that need the smallest GPU first."""
    described = []
    for path in shipped_recipes():
        recipe = load_recipe(path).recipe
        data = recipe.data
        sections = (data.demonstrations, data.comparisons, data.prompts)
        sources = [part.source for section in sections for part in section.parts]
        described.append(
            ShippedRecipe(
                path.stem,
                path,
                recipe.model.name_or_path,
                recipe.model.quantization,
                tuple(dict.fromkeys(sources)),
                _GPU_MEMORY[path.stem],
            )
        )
    return sorted(described, key=lambda recipe: recipe.gpu_memory_gb)
