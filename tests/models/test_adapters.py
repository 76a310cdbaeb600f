"""Adapters on disk: what does not fit, or is damaged, is told from what is fine."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhfctl.errors import CheckpointError
from rlhfctl.models import adapters
from rlhfctl.models.provenance import Provenance
from rlhfctl.recipe.schema import LoraSection
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context


@pytest.fixture
def parts(tiny_run, tmp_path):
    """Copies of a tiny run's checkpoints, to be damaged."""
    copies = {}
    for stage in ("sft", "rm"):
        shutil.copytree(tiny_run.stage(stage), tmp_path / stage)
        copies[stage] = tmp_path / stage
    return copies


def roles(tiny_run, parts):
    return open_roles(open_stage_context(tiny_run.recipe), parts)


def test_another_rank_is_named_with_the_setting_that_would_fit(parts):
    with pytest.raises(CheckpointError, match=r"rank 8 .* has rank 4") as caught:
        adapters.check_rank(parts["sft"], LoraSection(r=4))
    assert "lora.r=8" in str(caught.value)


def test_another_scale_is_named_with_the_setting_that_would_fit(parts):
    section = LoraSection(r=8, alpha=16, use_rslora=True)
    with pytest.raises(CheckpointError, match="has use_rslora false, and the recipe has") as caught:
        adapters.check_rank(parts["sft"], section)
    assert "lora.use_rslora=false" in str(caught.value)


def test_weights_cut_short_are_no_valid_checkpoint(tiny_run, parts):
    path = parts["rm"] / adapters.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        roles(tiny_run, parts)


def test_a_reward_model_without_its_head_is_refused(tiny_run, parts):
    path = parts["rm"] / adapters.WEIGHTS
    weights = load_file(path)
    del weights[adapters.head_key("score", "weight")]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="score head"):
        roles(tiny_run, parts)


def test_missing_tensors_are_counted(tiny_run, parts):
    path = parts["sft"] / adapters.WEIGHTS
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 tensors missing"):
        roles(tiny_run, parts)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("base_fingerprint", "0" * 64, "base model"),
        ("tokenizer_digest", "0" * 64, "tokenizer"),
        ("stop_token_ids", [5], "stop tokens"),
    ],
)
def test_checkpoints_of_other_parts_are_refused_by_name(tiny_run, parts, key, value, named):
    path = parts["rm"] / "rlhfctl.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=named):
        roles(tiny_run, parts)


def test_what_another_tool_made_has_no_provenance_and_is_taken(tiny_run, parts):
    (parts["sft"] / "rlhfctl.json").unlink()
    assert Provenance.load(parts["sft"]) is None
    roles(tiny_run, parts)


def test_trainable_weights_are_put_back_in_single_precision():
    model = torch.nn.Linear(2, 2).bfloat16()
    model.bias.requires_grad_(False)
    adapters.restore_float32(model)
    assert (model.weight.dtype, model.bias.dtype) == (torch.float32, torch.bfloat16)


def test_sets_are_saved_in_order(tiny_run, tmp_path):
    """A set of text has another order in each process."""
    weights = adapters.read_weights(tiny_run.stage("sft"))
    config = adapters.read_config(tiny_run.stage("sft"))
    saved = []
    for names in (["v_proj", "q_proj", "k_proj"], ["k_proj", "v_proj", "q_proj"]):
        config.target_modules = names  # peft writes a set in such an order
        adapters.save_adapter(weights, config, tmp_path, "base", "CAUSAL_LM")
        saved.append((tmp_path / adapters.CONFIG).read_bytes())
    assert saved[0] == saved[1]
    assert json.loads(saved[0])["target_modules"] == ["k_proj", "q_proj", "v_proj"]
