"""Models refused, and lengths beyond their positions, by the config alone."""

import json

import pytest
import torch

from benchmarks.tiny_models import POSITIONS, VOCABULARY, tiny_model
from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.architecture import (
    NAMED_LAYERS,
    Positions,
    positions,
    read_config,
    refusal,
    require_fit,
)
from rlhfctl.preflight import check_files, check_model
from rlhfctl.recipe.schema import Recipe
from tests.present import present

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}
LONG = {"rope_type": "longrope", "original_max_position_embeddings": 100}


def recipe_of(folder, sft=50, rm=50, prompt=30, response=20):
    return Recipe.model_validate(
        {
            "model": {"name_or_path": str(folder)},
            "sft": {"max_length": sft},
            "reward_model": {"max_length": rm},
            "generation": {"max_prompt_length": prompt, "max_new_tokens": response},
        }
    )


@pytest.fixture
def folder(tmp_path):
    """Write a config.json: ``folder(model_type=..., ...)``."""

    def write(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "bart"}, "padding of prompts"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "bert"}, "both sides"),
        ({"model_type": "rwkv"}, "state"),
        ({"model_type": "mllama"}, "text model"),
        ({"model_type": "xmod", "is_decoder": True}, "after the pad token"),
    ],
)
def test_a_refused_architecture_is_named_before_a_weight_loads(folder, config, reason):
    with pytest.raises(EnvironmentFault, match=reason) as raised:
        check_files(recipe_of(folder(**config)))
    assert f"the architecture {config['model_type']} " in raised.value.what


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "cohere", "minicpm3", "opt"])
def test_what_ppo_can_use_is_not_refused(model_type):
    assert refusal({"model_type": model_type}) is None
    assert refusal({"model_type": "bert", "is_decoder": True}) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gpt2", "n_positions": 48}, (48, "table")),
        ({"model_type": "mpt", "max_seq_len": 2048}, (2048, "table")),
        ({"model_type": "llama", "max_position_embeddings": 64}, (64, "trained")),
        (
            {"model_type": "llama", "max_position_embeddings": 64}
            | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            (64, "switching"),
        ),
        (
            {"model_type": "phi3", "max_position_embeddings": 4000, "rope_parameters": LONG},
            (100, "switching"),
        ),
        (
            {"model_type": "phi3", "max_position_embeddings": 4000}
            | {"original_max_position_embeddings": 90, "rope_scaling": {"type": "longrope"}},
            (90, "switching"),
        ),
        (
            {"model_type": "qwen2", "max_position_embeddings": 100, "rope_scaling": YARN},
            (400, "trained"),
        ),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
            | {"text_config": {"max_position_embeddings": 70, "rope_parameters": {"a": YARN}}},
            (400, "trained"),
        ),
    ],
)
def test_where_positions_end(config, expected):
    found = present(positions(config))
    assert (found.count, found.kind) == expected


def test_a_model_without_a_limit_has_none():
    assert positions({"model_type": "bloom", "hidden_size": 32}) is None
    assert isinstance(positions({"model_type": "gptj", "n_positions": 8}), Positions)


def test_lengths_beyond_a_table_of_positions_are_refused_with_the_remedy(folder):
    gpt2 = folder(model_type="gpt2", n_positions=48)
    with pytest.raises(RecipeError) as raised:
        check_model(recipe_of(gpt2))
    assert raised.value.what == (
        "the model has 48 positions, and sft.max_length (50), reward_model.max_length (50), "
        "generation.max_prompt_length + generation.max_new_tokens (50) may reach beyond"
    )
    assert raised.value.hint == "Lower each to 48 at most."
    fitting = recipe_of(gpt2, 48, 48, 28, 20)
    assert check_model(fitting) == []
    config = present(read_config(recipe_of(gpt2).model))
    assert not list(require_fit(recipe_of(gpt2, sft=48), config, ["sft"]))


@pytest.mark.parametrize("rope", [{"rope_type": "dynamic", "factor": 2.0}, LONG])
def test_frequencies_that_switch_by_the_batchs_width_are_refused(folder, rope):
    model = folder(model_type="llama", max_position_embeddings=100, rope_scaling=rope)
    with pytest.raises(RecipeError, match="widest row of a batch"):
        check_model(recipe_of(model, prompt=90))
    assert check_model(recipe_of(model, prompt=80)) == []


def test_lengths_beyond_trained_positions_are_a_warning(folder):
    model = folder(model_type="llama", max_position_embeddings=40)
    (warned,) = [
        found for found in check_model(recipe_of(model, rm=40)) if found.level == "warning"
    ]
    assert warned.where == "model.name_or_path"
    assert warned.what == (
        "sft.max_length (50), generation.max_prompt_length + generation.max_new_tokens (50) exceeds "
        "the 40 positions that the model was trained on"
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("rope", "agrees"),
    [
        ({"rope_type": "dynamic", "factor": 4.0}, False),
        ({"rope_type": "yarn", "factor": 4.0}, True),
        ({"rope_type": "linear", "factor": 4.0}, True),
    ],
)
def test_only_a_switching_rope_depends_on_the_width_and_only_beyond_its_limit(rope, agrees):
    """Log-probabilities of 12 tokens, alone and in a batch padded to a width."""
    model = tiny_model("llama", rope_parameters=rope | {"rope_theta": 10_000.0})
    ids = torch.randint(3, VOCABULARY, (1, 12), generator=torch.Generator().manual_seed(0))
    alone = model(ids, use_cache=False).logits

    def difference(width):
        padded = torch.nn.functional.pad(ids, (0, width - 12))
        return float((model(padded, use_cache=False).logits[:, :12] - alone).abs().max())

    assert difference(POSITIONS) < 1e-4
    assert (difference(2 * POSITIONS) < 1e-4) is agrees


@pytest.mark.parametrize("model_type", ["mamba", "llama4"])
def test_lora_on_every_layer_is_refused_where_not_all_are_plain_and_layers_are_named(
    folder, model_type
):
    recipe = recipe_of(folder(model_type=model_type))
    with pytest.raises(RecipeError, match="does not work") as raised:
        check_model(recipe)
    assert raised.value.where == "lora.target_modules"
    named = list(NAMED_LAYERS[model_type])
    assert ", ".join(named) in raised.value.hint
    lora = recipe.lora.model_copy(update={"target_modules": named})
    findings = check_model(recipe.model_copy(update={"lora": lora}))
    assert [finding.level for finding in findings] == ["ok"]
    assert check_model(recipe.model_copy(update={"lora": None})) == []


def test_an_architecture_that_cannot_be_quantised_is_refused_on_such_a_base(folder):
    recipe = recipe_of(folder(model_type="modernbert-decoder"))
    assert check_model(recipe) == []
    quantised = recipe.model.model_copy(update={"quantization": "4bit"})
    with pytest.raises(RecipeError, match="quantise its LM head") as raised:
        check_model(recipe.model_copy(update={"model": quantised}))
    assert raised.value.where == "model.quantization"
