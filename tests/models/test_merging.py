"""Adapters merged into their unquantised base, against the formula of LoRA in float64."""

import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models.merging import (
    load_language_model,
    load_reward_model,
    merged,
    stored_dtype,
    unquantised,
)
from rlhfctl.recipe.schema import ModelSection

IDS = torch.tensor([[2, 7, 300, 41, 1]])


@pytest.fixture
def section(finished_base):
    return unquantised(ModelSection(name_or_path=str(finished_base)), "float32")


@torch.no_grad()
def test_each_weight_is_the_base_plus_alpha_over_r_times_b_a(section, finished_run, finished_base):
    folder = finished_run / "ppo"
    tensors = {
        name: t.double() for name, t in load_file(folder / "adapter_model.safetensors").items()
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    base = load_file(finished_base / "model.safetensors")
    whole = dict(merged(load_language_model(section, folder)).named_parameters())
    adapted = [name for name in tensors if name.endswith("lora_A.weight")]
    assert len(adapted) == 14
    for name in adapted:
        product = tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
        key = name.removeprefix("base_model.model.").replace(".lora_A", "")
        expected = base[key].double() + config["lora_alpha"] / config["r"] * product
        torch.testing.assert_close(whole[key].double(), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_adapter_is_the_one_that_peft_loads(section, finished_run, finished_base):
    plain = transformers.AutoModelForCausalLM.from_pretrained(finished_base)
    expected = PeftModel.from_pretrained(plain, finished_run / "sft").eval()(IDS).logits
    torch.testing.assert_close(
        load_language_model(section, finished_run / "sft")(IDS).logits, expected
    )


@torch.no_grad()
def test_a_reward_model_is_the_one_that_peft_loads(section, finished_run, finished_base):
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(
        finished_base, num_labels=1, pad_token_id=0
    )
    expected = PeftModel.from_pretrained(plain, finished_run / "rm").eval()(IDS).logits
    model = load_reward_model(section, finished_run / "rm", 0)
    torch.testing.assert_close(model(IDS).logits, expected)
    torch.testing.assert_close(merged(model)(IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_quantised_base_is_refused(section, finished_run):
    model = load_language_model(
        section.model_copy(update={"quantization": "4bit"}), finished_run / "sft"
    )
    with pytest.raises(EnvironmentFault, match="unquantised base only"):
        merged(model)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bfloat16", "bfloat16"), (torch.float16, "float16"), (None, "float32")]
)
def test_the_dtype_of_the_base_is_that_of_its_config(monkeypatch, dtype, expected):
    config = SimpleNamespace(dtype=dtype, get_text_config=lambda: SimpleNamespace(dtype=None))
    monkeypatch.setattr("rlhfctl.models.merging.load_config", lambda *_: config)
    assert stored_dtype(ModelSection(name_or_path="embedded")) == expected
