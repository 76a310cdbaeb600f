"""Fused norms, gates and rotations say what transformers' modules say, forward and backward."""

import re
from copy import deepcopy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from rlhfctl.models import elementwise, linear
from rlhfctl.models.elementwise import faster, gated, rms_norm, rotary

SIZES = {
    "vocab_size": 17,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LIKE_LLAMA = {
    "llama": {"RMSNorm", "MLP", "Attention"},
    "mistral": {"RMSNorm", "MLP", "Attention"},
    "qwen2": {"RMSNorm", "MLP", "Attention"},
    "qwen3": {"RMSNorm", "MLP", "Attention"},
    "granite": {"RMSNorm", "MLP", "Attention"},
    # A norm that multiplies by 1 + weight and an MLP with GELU.
    "gemma2": {"MLP", "Attention"},
    # A norm without weights, and a rotation that casts.
    "olmo": {"MLP"},
    # A part of each head is rotated; gate and up are one layer.
    "phi3": {"RMSNorm"},
    "gpt_neox": set(),
}
"""Modules of each architecture that are Llama's by their instructions."""
TOLERANCE = 5e-6
"""Of the largest element: rounding of sums of some tens of products in fp32, through two layers."""


@pytest.fixture(autouse=True)
def fast_layers(monkeypatch):
    """Use the fast modules even where the suite runs without them."""
    monkeypatch.delenv(linear.SWITCH, raising=False)


def model_of(kind, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | changes)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def outcome(model, **inputs):
    """Logits and the gradient of every weight, of a sum that weighs all logits differently."""
    ids = torch.arange(1, 15).view(2, 7)
    logits = model(ids, use_cache=False, **inputs).logits
    weigh = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return logits, *torch.autograd.grad((logits * weigh).sum(), list(model.parameters()))


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_the_functions_have_the_gradients_of_finite_differences(monkeypatch):
    monkeypatch.setattr(elementwise, "is_eager_cpu_float32", lambda *_: True)
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 0.1), (draw(2, 3, 4), draw(4)))
    assert torch.autograd.gradcheck(gated, (draw(3, 5), draw(3, 5)))
    # Of no unit length, as with YaRN.
    cos, sin = (draw(1, 3, 2).detach().repeat(1, 1, 2) for _ in range(2))
    heads = draw(2, 2, 3, 4), draw(2, 1, 3, 4)
    assert torch.autograd.gradcheck(lambda q, k: rotary(q, k, cos, sin), heads)
    plain = apply_rotary_pos_emb(*heads, cos, sin)
    for fused, expected in zip(rotary(*heads, cos, sin), plain, strict=True):
        torch.testing.assert_close(fused, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_logits_and_gradients_are_those_in_double_precision(kind):
    model = model_of(kind)
    exact = outcome(deepcopy(model).double())
    plain = {type(module) for module in model.modules()}
    linear.use_fast_cpu_layers(model)
    new = {type(module).__name__ for module in model.modules() if type(module) not in plain}
    assert {
        part for name in new for part in re.findall("RMSNorm|MLP|Attention", name)
    } == LIKE_LLAMA[kind]
    for fused, expected in zip(outcome(model), exact, strict=True):
        assert fused.dtype == torch.float32
        assert (fused - expected).abs().max() < TOLERANCE * expected.abs().max()


def test_passes_with_and_without_gradients_agree_to_the_last_bit():
    model = model_of("llama")
    linear.use_fast_cpu_layers(model)
    ids = torch.arange(1, 15).view(2, 7)
    with_gradients = model(ids).logits
    with torch.no_grad():
        assert torch.equal(model(ids).logits, with_gradients)


def test_a_graph_serves_twice():
    """The backward pass overwrites nothing that it saved or was given."""
    model = model_of("llama")
    linear.use_fast_cpu_layers(model)
    total = model(torch.arange(1, 8)[None]).logits.square().sum()
    weights = list(model.parameters())
    first = torch.autograd.grad(total, weights, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(total, weights), strict=True):
        assert torch.equal(one, other)


def test_fewer_bytes_are_stored_for_the_backward_pass():
    def stored(model):
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(torch.arange(1, 15).view(2, 7)).logits
        del logits
        return sum(storages.values())

    model = model_of("llama")
    before = stored(model)
    linear.use_fast_cpu_layers(model)
    assert stored(model) < before


def test_another_activation_and_another_dtype_are_transformers_own():
    for model in (model_of("llama", hidden_act="gelu"), model_of("llama").bfloat16()):
        is_half = model.dtype == torch.bfloat16
        before = outcome(model)
        linear.use_fast_cpu_layers(model)
        for new, old in zip(outcome(model), before, strict=True):
            if is_half:
                assert torch.equal(new, old)
            else:
                torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


def test_a_class_is_replaced_once_and_keeps_its_name():
    model = model_of("llama")
    linear.use_fast_cpu_layers(model)
    classes = [type(module) for module in model.modules()]
    linear.use_fast_cpu_layers(model)
    assert [type(module) for module in model.modules()] == classes
    attention = model.model.layers[0].self_attn
    assert type(attention).__name__ == "LlamaAttention"
    assert faster(type(attention)) is None
    assert type(deepcopy(model).model.layers[0].self_attn) is type(attention)


def test_a_norm_with_other_instructions_is_not_recognised():
    class Shifted(torch.nn.Module):
        def forward(self, hidden_states):
            input_dtype = hidden_states.dtype
            hidden_states = hidden_states.to(torch.float32)
            variance = hidden_states.pow(2).mean(-1, keepdim=True)
            hidden_states = hidden_states * torch.rsqrt(variance - self.variance_epsilon)
            return self.weight * hidden_states.to(input_dtype)

    assert faster(Shifted) is None
    assert faster(torch.nn.LayerNorm) is None
