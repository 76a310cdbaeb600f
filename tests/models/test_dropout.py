"""Dropout is off whatever a config says: as a module, as a number, and as a number in a config."""

import pytest
import torch
from transformers import AutoConfig

from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.dropout import disable_dropout, silence_config
from rlhfctl.models.scorer import load_scorer
from rlhfctl.recipe.schema import ModelSection
from tests.models.tiny_architectures import save_tiny

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 2]])
HALF = {
    "gpt2": ("attn_pdrop", "embd_pdrop", "resid_pdrop"),
    "gpt_bigcode": ("attn_pdrop", "embd_pdrop", "resid_pdrop"),
    "opt": ("dropout", "attention_dropout"),
    "biogpt": ("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout"),
    "seed_oss": ("attention_dropout", "residual_dropout"),
    "gpt_neox": ("attention_dropout", "hidden_dropout"),
    "llama": ("attention_dropout",),
}


def differs(model):
    model.train()
    with torch.no_grad():
        one, two = (model(input_ids=IDS).logits for _ in range(2))
    return not torch.equal(one, two)


@pytest.mark.parametrize("model_type", HALF)
def test_training_passes_of_a_model_with_dropout_are_equal(tmp_path, model_type):
    from transformers import AutoModelForCausalLM

    folder = save_tiny(model_type, tmp_path, **dict.fromkeys(HALF[model_type], 0.5))
    assert differs(AutoModelForCausalLM.from_pretrained(folder)), "its dropout must show"
    section = ModelSection(name_or_path=str(folder))
    assert not differs(load_causal_lm(section))
    assert not differs(load_scorer(section, 0))


def test_every_probability_of_dropout_is_0_in_nested_configs_too():
    config = AutoConfig.for_model("mpt", attn_config={"attn_pdrop": 1}, resid_pdrop=0.3)
    config.parts = {"dropout": 0.2, "sizes": 3}
    config.drop_last = True
    silence_config(config)
    assert config.attn_config.attn_pdrop == 0
    assert config.resid_pdrop == 0
    assert config.parts == {"dropout": 0.0, "sizes": 3}
    assert config.drop_last is True, "a switch is no probability"
    text = AutoConfig.for_model("gemma3", text_config={"attention_dropout": 0.5})
    silence_config(text)
    assert text.text_config.attention_dropout == 0


def test_numbers_of_a_loaded_model_are_set_to_0():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.residual_dropout, self.router_jitter_noise, self.p, self.drop = 0.1, 0.1, 0.1, True
            self.inner = torch.nn.Dropout(0.1)

    layer = Layer()
    disable_dropout(layer)
    assert (layer.residual_dropout, layer.router_jitter_noise, layer.inner.p) == (0, 0, 0)
    assert layer.p == 0.1, "only of a module that drops"
    assert layer.drop is True
