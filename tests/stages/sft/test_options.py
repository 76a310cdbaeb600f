"""Options of SFT that TRL and peft carry out: noise on the embeddings, the scale of adapters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners import lora
from safetensors.torch import load_file

from rlhfctl.models import adapters
from rlhfctl.models.base import load_causal_lm
from rlhfctl.plan.advice import with_settings
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.sft import stage as sft
from tests.conftest import tiny_recipe

if TYPE_CHECKING:
    from pathlib import Path


def trained(folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's weights after SFT with some settings."""
    folder.mkdir()
    recipe = with_settings(
        tiny_recipe(), {key.replace("__", "."): v for key, v in settings.items()}
    )
    sft.run(recipe, {}, folder, NullMonitor())
    return load_file(folder / adapters.WEIGHTS)


def test_noise_on_the_embeddings_changes_training_and_repeats(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain")
    noisy, again = (trained(tmp_path / name, sft__neftune_noise_alpha=5) for name in ("one", "two"))
    assert all(torch.equal(noisy[name], again[name]) for name in noisy)
    assert any(not torch.equal(noisy[name], plain[name]) for name in plain)


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank(tmp_path: Path) -> None:
    trained(tmp_path / "sft", lora__use_rslora=True)
    recipe = tiny_recipe()
    assert recipe.lora is not None
    model = PeftModel.from_pretrained(load_causal_lm(recipe.model), str(tmp_path / "sft"))
    layers = [module for module in model.modules() if isinstance(module, lora.Linear)]
    scales = {layer.scaling["default"] for layer in layers}
    assert scales == {recipe.lora.alpha / math.sqrt(recipe.lora.r)}
