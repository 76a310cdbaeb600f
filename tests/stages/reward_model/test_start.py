"""Initial reward model: the SFT adapter under a fresh head, and what its training adapts."""

import pytest
import torch
from safetensors.torch import load_file

from rlhfctl.recipe.training import RewardModelSection
from rlhfctl.stages.reward_model.training import _model
from rlhfctl.stages.shared.stage_context import open_stage_context

ADAPTER = "adapter_model.safetensors"


@pytest.fixture
def sft(tiny_run):
    return tiny_run.stage("sft")


def test_it_starts_from_the_sft_adapter_and_not_from_the_base(tiny_run, sft):
    from peft import get_peft_model_state_dict

    model = _model(open_stage_context(tiny_run.recipe), sft, 0)
    started = get_peft_model_state_dict(model, save_embedding_layers=False)
    saved = load_file(sft / ADAPTER)
    assert any(bool(weight.any()) for name, weight in saved.items() if "lora_B" in name)
    for name, weight in saved.items():
        assert torch.equal(started[name], weight), name


def test_its_head_starts_narrow_and_trains_in_full(tiny_run, sft):
    model = _model(open_stage_context(tiny_run.recipe), sft, 0)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    heads = {name: weight for name, weight in trained.items() if "score" in name}
    assert len(heads) == 1
    head = next(iter(heads.values()))
    assert head.dtype == torch.float32
    assert head.std().item() == pytest.approx((head.shape[1] + 1) ** -0.5, rel=0.2)
    assert all("lora_" in name for name in trained if name not in heads)


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_every_linear_layer_is_adapted_but_the_heads(tiny_run, stage):
    names = load_file(tiny_run.stage(stage) / ADAPTER).keys()
    adapted = {name.split(".")[-3] for name in names if "lora_A" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    others = {name for name in names if "lora_" not in name}
    assert others == ({"base_model.model.score.weight"} if stage == "rm" else set())


def test_by_default_it_reads_each_comparison_once():
    assert RewardModelSection().num_train_epochs == 1.0
    assert RewardModelSection().center_rewards_coefficient is None
