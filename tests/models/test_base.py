"""Loading the base: precision, quantisation whose gradients are right, fingerprints."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from rlhfctl.errors import EnvironmentFault, UnsafeError
from rlhfctl.models.base import (
    base_fingerprint,
    enable_gradient_checkpointing,
    load_causal_lm,
    require_gradient_checkpointing,
)
from rlhfctl.recipe.schema import ModelSection
from rlhfctl.world.model import embedded_path

IDS = torch.tensor([[300, 301, 302, 310, 320, 1]])
FOUR_BIT = ModelSection(quantization="4bit")


def adapted(model):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config)


def adapter_gradients(model):
    model.zero_grad()
    model(IDS).logits.log_softmax(-1)[0, :-1].gather(1, IDS[0, 1:, None]).sum().backward()
    return {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


def dequantized():
    """The 4-bit base with each weight written out in fp32: what its numbers mean."""
    from bitsandbytes.functional import dequantize_4bit

    quantized, plain = load_causal_lm(FOUR_BIT), load_causal_lm(ModelSection())
    modules = dict(plain.named_modules())
    changed = 0
    for name, module in quantized.named_modules():
        state = getattr(module.weight, "quant_state", None) if hasattr(module, "weight") else None
        if state is not None:
            weight = dequantize_4bit(module.weight.data, state).float()
            changed += not torch.equal(weight, modules[name].weight)
            modules[name].weight.data = weight
    assert changed > 10
    return plain


def test_gradients_through_a_4bit_base_are_those_of_its_weights_written_out():
    model, plain = adapted(load_causal_lm(FOUR_BIT)), adapted(dequantized())
    model.eval()
    with torch.no_grad():
        model(IDS)
    found, expected = adapter_gradients(model), adapter_gradients(plain)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


def test_4bit_leaves_heads_and_embeddings_alone():
    plain, quantized = load_causal_lm(ModelSection()), load_causal_lm(FOUR_BIT)
    assert torch.equal(
        plain.get_output_embeddings().weight, quantized.get_output_embeddings().weight
    )
    assert quantized.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8


def test_the_fingerprint_survives_dtype_and_quantisation_but_not_other_weights(tmp_path):
    bases = [
        load_causal_lm(section)
        for section in (ModelSection(), FOUR_BIT, ModelSection(dtype="bfloat16"))
    ]
    assert len({base_fingerprint(base) for base in bases}) == 1
    for file in embedded_path().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"] + 0.1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    other = load_causal_lm(ModelSection(name_or_path=str(tmp_path)))
    assert base_fingerprint(other) != base_fingerprint(bases[0])


def test_no_dropout_is_left():
    model = load_causal_lm(ModelSection())
    model.train()
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_a_name_that_nobody_has_is_an_environment_fault_that_says_what_to_do():
    with pytest.raises(EnvironmentFault, match="nobody/has-this-model") as caught:
        load_causal_lm(ModelSection(name_or_path="nobody/has-this-model"))
    assert "HF_HUB_OFFLINE" in str(caught.value)


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(EnvironmentFault, match=r"config\.json"):
        load_causal_lm(ModelSection(name_or_path=str(tmp_path)))


def test_a_config_that_asks_to_run_code_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(UnsafeError, match="auto_map"):
        load_causal_lm(ModelSection(name_or_path=str(tmp_path)))


def test_gradient_checkpointing_of_an_architecture_without_it_is_refused_by_name():
    from transformers import CTRLConfig, CTRLLMHeadModel

    ctrl = CTRLLMHeadModel(CTRLConfig(vocab_size=16, n_embd=8, n_layer=1, n_head=1, dff=8))
    with pytest.raises(EnvironmentFault, match="CTRLLMHeadModel does not support gradient"):
        enable_gradient_checkpointing(ctrl)
    base = load_causal_lm(ModelSection())
    enable_gradient_checkpointing(base)
    assert base.is_gradient_checkpointing
    require_gradient_checkpointing(adapted(base))
