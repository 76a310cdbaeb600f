"""Precision of the stages that TRL trains: fp32 weights, the recipe's dtype for products."""

import pytest
import torch

from rlhfctl.stages.reward_model.training import _model as reward_model
from rlhfctl.stages.sft.stage import _model as language_model
from rlhfctl.stages.shared.hf_training import training_arguments
from rlhfctl.stages.shared.stage_context import open_stage_context


def recipe_in(run, dtype):
    model = run.recipe.model.model_copy(update={"dtype": dtype})
    return run.recipe.model_copy(update={"model": model})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_trainers_compute_in_the_recipes_dtype(tiny_full_run, tmp_path, dtype):
    recipe = recipe_in(tiny_full_run, dtype)
    for section in (recipe.sft, recipe.reward_model):
        assert training_arguments(section, recipe, tmp_path)["bf16"] is (dtype == "bfloat16")


def test_whole_weights_are_loaded_in_fp32_whatever_the_dtype(tiny_full_run):
    """The reward model starts from the SFT weights to the last bit, not from their rounding."""
    from safetensors.torch import load_file

    context = open_stage_context(recipe_in(tiny_full_run, "bfloat16"))
    assert {weight.dtype for weight in language_model(context).parameters()} == {torch.float32}
    sft = tiny_full_run.stage("sft")
    started, trained = (
        reward_model(context, sft, 0).state_dict(),
        load_file(sft / "model.safetensors"),
    )
    shared = started.keys() & trained.keys()
    assert len(shared) > 10
    assert all(torch.equal(started[name], trained[name]) for name in shared)
    assert not all(torch.equal(started[name], trained[name].bfloat16().float()) for name in shared)
