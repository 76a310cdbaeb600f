"""Liger's kernels: refused where they cannot run, and put in place of the right modules.

The kernels themselves run on GPUs alone (`tests/gpu`).
"""

import pytest

from benchmarks.tiny_models import tiny_model
from rlhfctl.errors import EnvironmentFault
from rlhfctl.models import liger
from rlhfctl.models.base import load_causal_lm
from rlhfctl.recipe.schema import ModelSection

SECTION = ModelSection(use_liger_kernel=True)


def test_without_the_package_or_a_gpu_a_model_is_not_loaded(monkeypatch):
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="liger-kernel is not installed") as raised:
        load_causal_lm(SECTION)
    assert "rlhfctl[liger]" in raised.value.hint
    monkeypatch.setattr(liger, "find_spec", lambda name: object())
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(EnvironmentFault, match="need a CUDA or ROCm GPU") as raised:
        load_causal_lm(SECTION)
    assert raised.value.where == "model.use_liger_kernel"


def test_norms_and_mlps_are_replaced_and_losses_are_not(monkeypatch):
    pytest.importorskip("liger_kernel")
    from transformers.models.llama import modeling_llama

    # Liger replaces names of the module, for models made later.
    for name in ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP"):
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))
    model = tiny_model("llama")
    liger.patch_instance(model)
    layer = model.model.layers[0]
    for module in (model.model.norm, layer.input_layernorm, layer.mlp):
        assert module.forward.__func__.__module__.startswith("liger_kernel")
    assert not model.forward.__module__.startswith("liger_kernel")
    assert modeling_llama.apply_rotary_pos_emb.__module__.startswith("liger_kernel")


def test_an_architecture_without_kernels_is_refused():
    pytest.importorskip("liger_kernel")
    with pytest.raises(EnvironmentFault, match="Liger has no kernels for gpt_neox"):
        liger.patch_instance(tiny_model("gpt_neox"))
