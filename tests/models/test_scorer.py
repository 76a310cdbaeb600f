"""A head of ours on any decoder: right by plain transformers, loaded there where it has a class."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from rlhfctl.errors import CheckpointError
from rlhfctl.models.scorer import head_of, load_scorer, scorer_class
from rlhfctl.recipe.schema import ModelSection
from tests.models.tiny_architectures import CONFIGS, save_tiny

ROWS = [[5, 6, 7, 8, 9, 2], [10, 11, 2]]
IDS = torch.tensor([ROWS[0], [*ROWS[1], 0, 0, 0]])
MASK = (IDS != 0).long()
NO_SEQUENCE_CLASS = {"cohere", "lfm2", "olmoe"}
NO_TOKEN_CLASS = NO_SEQUENCE_CLASS | {"opt", "gemma3_text"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a random language model."""
    folders = {}

    def folder(model_type):
        if model_type not in folders:
            folders[model_type] = save_tiny(model_type, tmp_path_factory.mktemp("tiny"))
        return folders[model_type]

    return folder


def loaded(folder, **options):
    section = ModelSection(name_or_path=str(folder))
    model = load_scorer(section, 0, **options).eval()
    torch.manual_seed(1)
    head = head_of(model)
    with torch.no_grad():
        for weight in head.parameters():
            weight.normal_()
    return model


@torch.no_grad()
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_score_is_the_head_on_the_state_of_the_last_token(saved, model_type):
    folder = saved(model_type)
    model, decoder = loaded(folder), AutoModel.from_pretrained(folder).eval()
    found = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    shifted = model(input_ids=IDS.roll(3, 1)[1:], attention_mask=MASK.roll(3, 1)[1:]).logits
    assert found.shape == (2, 1)
    for row, ids in enumerate(ROWS):
        state = decoder(torch.tensor([ids]))[0][0, -1].double()
        expected = float(state @ head_of(model).weight[0].double())
        assert float(found[row]) == pytest.approx(expected, abs=2e-5)
    if model_type == "llama":
        torch.testing.assert_close(shifted, found[1:], atol=2e-5, rtol=0, msg="left padding")


@torch.no_grad()
@pytest.mark.parametrize("model_type", CONFIGS)
@pytest.mark.parametrize("per_token", [False, True])
def test_a_saved_one_loads_in_plain_transformers_where_it_has_a_class(
    saved, tmp_path, model_type, per_token
):
    model = loaded(saved(model_type), per_token=per_token)
    expected = model(input_ids=IDS, attention_mask=MASK).logits
    model.save_pretrained(tmp_path)
    assert model.has_own_class == (
        model_type not in (NO_TOKEN_CLASS if per_token else NO_SEQUENCE_CLASS)
    )
    if model.has_own_class:
        auto = AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification
        again = auto.from_pretrained(tmp_path, num_labels=1).eval()
        assert type(again).__name__ == type(model).__name__
    else:
        again = scorer_class(str(tmp_path), per_token=per_token).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(IDS, attention_mask=MASK).logits, expected, atol=0, rtol=0)
    states = model(input_ids=IDS[1:, :3]).logits
    if per_token:
        torch.testing.assert_close(states[0], expected[1, :3], atol=2e-5, rtol=0)


def test_eos_as_the_pad_is_scored_where_lengths_say(saved):
    """A mask of lengths counts, not the ids."""
    model = loaded(saved("llama"))
    model.config.pad_token_id = 2
    padded = torch.tensor([[*ROWS[1], 2, 2, 2]])
    with torch.no_grad():
        found = model(input_ids=padded, attention_mask=MASK[1:]).logits
        expected = model(input_ids=torch.tensor([ROWS[1]]), attention_mask=MASK[1:, :3]).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_under_autocast_the_head_is_computed_in_fp32(saved):
    model = loaded(saved("llama"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(input_ids=IDS, attention_mask=MASK).logits
        states = model.model(IDS, attention_mask=MASK)[0]
    last = states[[0, 1], [5, 2]]
    expected = last.double() @ head_of(model).weight[0].double()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 0].double(), expected, atol=1e-5, rtol=0)
    rounded = (last.bfloat16() @ head_of(model).weight[0].bfloat16()).double()
    assert (rounded - expected).abs().max() > 1e-3, "in bfloat16 it would differ"


def test_a_folder_that_lacks_weights_of_the_decoder_is_refused(saved, tmp_path):
    from safetensors.torch import load_file, save_file

    for file in saved("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 weights are missing .*layers\.1\.mlp\.up_proj"):
        loaded(tmp_path)


@pytest.mark.parametrize("model_type", ["llama", "cohere", "gpt2"])
def test_a_4bit_base_is_quantised_below_a_head_in_fp32(saved, model_type):
    section = ModelSection(name_or_path=str(saved(model_type)), quantization="4bit")
    model = load_scorer(section, 0)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    assert type(head_of(model)) is torch.nn.Linear
    assert head_of(model).weight.dtype == torch.float32


def test_the_card_of_a_reward_model_loads_it_where_transformers_has_no_class(
    saved, tmp_path, monkeypatch
):
    """Its lines are run as a reader would."""
    from benchmarks.tiny_models import write_tokenizer
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.training import SFTResult
    from rlhfctl.stages.shared.model_card import write_model_card
    from rlhfctl.stages.shared.stage_context import open_stage_context

    base = tmp_path / "base"
    for file in saved("cohere").iterdir():
        base.mkdir(exist_ok=True)
        (base / file.name).write_bytes(file.read_bytes())
    write_tokenizer(base)
    model = loaded(base)
    model.save_pretrained(tmp_path)
    section = ModelSection(name_or_path=str(base))
    context = open_stage_context(Recipe(model=section, lora=None))
    result = SFTResult(3.0, 1.5, 0.5, 0.7, 2.0, 8, 2, 2, 100, 1.0)
    write_model_card(tmp_path, "rm", context, "SEQ_CLS", result)
    code = (tmp_path / "README.md").read_text().split("```")[1].removeprefix("python")
    context.save_tokenizer(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    with torch.no_grad():
        again = names["model"].eval()(IDS, attention_mask=MASK).logits
        torch.testing.assert_close(again, model(IDS, attention_mask=MASK).logits, atol=0, rtol=0)
