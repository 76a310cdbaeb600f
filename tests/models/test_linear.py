"""Quick layers say what torch's and peft's say, forward and backward, to single precision."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlhfctl.models import linear

TOLERANCE = 2e-6
"""Of the largest element: rounding of sums of up to 160 products in fp32."""


@pytest.fixture(autouse=True)
def fast_layers(monkeypatch):
    """Use the fast layers even where the suite runs without them."""
    monkeypatch.delenv(linear.SWITCH, raising=False)


class Two(torch.nn.Module):
    """Two layers, one that widens and one that narrows."""

    def __init__(self, bias):
        super().__init__()
        self.first = torch.nn.Linear(96, 160, bias=bias)
        self.second = torch.nn.Linear(160, 64, bias=bias)

    def forward(self, states):
        return self.second(torch.tanh(self.first(states)))


def model_of(kind, bias):
    torch.manual_seed(0)
    model = Two(bias)
    if kind == "lora":
        config = LoraConfig(r=8, lora_alpha=12, target_modules=["first", "second"])
        model = get_peft_model(model, config, adapter_name="policy")
        model.add_adapter("critic", config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
    return model


def outcome(model, states):
    """The output and every gradient of a sum of it."""
    states = states.clone().requires_grad_()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    output = model(states)
    return output, *torch.autograd.grad(output.square().sum(), [states, *weights])


@pytest.mark.parametrize("slow_mkl", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("shape", [(7,), (2, 5), (3, 90)])
def test_outputs_and_gradients_are_those_in_double_precision(
    monkeypatch, kind, bias, shape, slow_mkl
):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: slow_mkl)
    monkeypatch.setattr(linear, "_ONEDNN_PAYS", 0)
    model = model_of(kind, bias)
    states = torch.randn(*shape, 96)
    exact = outcome(deepcopy(model).double(), states.double())
    linear.use_fast_cpu_layers(model)
    kinds = {type(module) for module in model.modules()}
    assert (linear.CPULoRA in kinds) == (kind == "lora")
    assert (linear.CPULinear in kinds) == slow_mkl
    for quick, wanted in zip(outcome(model, states), exact, strict=True):
        assert quick.dtype == torch.float32
        assert (quick - wanted).abs().max() < TOLERANCE * wanted.abs().max()


def test_onednn_takes_large_products_alone(monkeypatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    model = torch.nn.Linear(96, 160)
    linear.use_fast_cpu_layers(torch.nn.Sequential(model))
    rows = []
    product = torch.ops.mkldnn._linear_pointwise

    def count(left, *others):
        rows.append(len(left))
        return product(left, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", count)
    for number in (260, 261):
        model(torch.randn(number, 96))
    assert rows == [261], "4 million multiplications are 260.4 rows"


def test_of_many_rows_alone_the_merged_weight_is_used(monkeypatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: False)
    model = model_of("lora", bias=False)
    linear.use_fast_cpu_layers(model)
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    for rows, inner in ((270, False), (7, True)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(rows, 96))
        assert ((rows, 8) in kept) == inner, "a product with A is kept where nothing was merged"
        assert (160, 96) in kept
        assert kept.count((160, 96)) == 1, "no merged weight is kept"


def test_the_active_adapter_alone_speaks_and_a_disabled_one_is_silent(monkeypatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: False)
    model, states = model_of("lora", bias=True), torch.randn(3, 96)
    plain = deepcopy(model)
    linear.use_fast_cpu_layers(model)
    for name in ("policy", "critic"):
        model.set_adapter(name)
        plain.set_adapter(name)
        torch.testing.assert_close(model(states), plain(states), rtol=1e-5, atol=1e-5)
    with model.disable_adapter(), plain.disable_adapter():
        assert torch.equal(model(states), plain(states))


def test_bfloat16_is_left_to_torch_and_peft_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    model, states = model_of("lora", bias=False).bfloat16(), torch.randn(3, 96).bfloat16()
    before = outcome(model, states)
    linear.use_fast_cpu_layers(model)
    for quick, wanted in zip(outcome(model, states), before, strict=True):
        assert torch.equal(quick, wanted)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_environment_switch_leaves_every_layer_as_it_is(monkeypatch, kind):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    monkeypatch.setenv(linear.SWITCH, "0")
    model = model_of(kind, bias=True)
    before = [type(module) for module in model.modules()]
    linear.use_fast_cpu_layers(model)
    assert [type(module) for module in model.modules()] == before


class Router(torch.nn.Linear):
    """A linear layer by class that returns something else, as the routers of some experts do."""

    def forward(self, states):
        return super().forward(states) * 2.0


def test_a_subclass_of_a_linear_layer_keeps_its_own_forward():
    model = torch.nn.Sequential(Router(4, 4))
    adapted = get_peft_model(model, LoraConfig(target_modules=["0"]))
    states = torch.randn(2, 4)
    expected = adapted(states)
    linear.use_fast_cpu_layers(adapted)
    torch.testing.assert_close(adapted(states), expected)


def test_an_output_may_be_changed_in_place():
    """As RoCBert does."""
    adapted = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(4, 4)), LoraConfig(target_modules=["0"])
    )
    linear.use_fast_cpu_layers(adapted)
    output = adapted(torch.randn(2, 3, 4))
    output.mul_(2.0)
    output.sum().backward()
