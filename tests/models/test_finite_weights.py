"""A NaN in given weights is named with its file, before anything is computed from it."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhfctl.errors import CheckpointError, ExitCode
from rlhfctl.models import adapters
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.finite_weights import require_finite_model
from rlhfctl.models.scorer import load_scorer
from rlhfctl.recipe.schema import ModelSection
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from rlhfctl.world.model import embedded_path


def broken(source, folder, number, value=math.nan):
    """Copy a folder of weights with one element of one tensor replaced; return the tensor's name."""
    shutil.copytree(source, folder)
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[number]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})
    return name


def refused(error, path, name):
    assert error.exit_code == ExitCode.NO_CHECKPOINT
    assert name in error.what
    assert error.where == str(path)


@pytest.mark.parametrize("number", [0, 5, -1])
@pytest.mark.parametrize("load", [load_causal_lm, lambda section: load_scorer(section, 0)])
def test_of_the_base(tmp_path, number, load):
    name = broken(embedded_path(), tmp_path / "base", number)
    with pytest.raises(CheckpointError) as caught:
        load(ModelSection(name_or_path=str(tmp_path / "base")))
    refused(caught.value, tmp_path / "base" / "model.safetensors", name)


def test_of_a_base_that_is_quantised(tmp_path):
    name = broken(embedded_path(), tmp_path / "base", 5)
    with pytest.raises(CheckpointError) as caught:
        load_causal_lm(ModelSection(name_or_path=str(tmp_path / "base"), quantization="4bit"))
    refused(caught.value, tmp_path / "base" / "model.safetensors", name)


def test_a_buffer_may_be_infinite(tmp_path):
    """As the bounds of Gemma 4's clipped layers are, in the file of a base that is quantised."""

    class Clipped(torch.nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("highest", torch.tensor(math.inf))

    model = torch.nn.Sequential(Clipped())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    require_finite_model(model, str(tmp_path), None, quantized=True)
    broken_weights = model.state_dict() | {"0.bias": torch.tensor([0.0, math.nan])}
    save_file(broken_weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor 0\.bias"):
        require_finite_model(model, str(tmp_path), None, quantized=True)


def test_a_number_too_large_for_the_dtype_is_told_from_a_damaged_file(tmp_path):
    broken(embedded_path(), tmp_path / "base", 3, value=1e6)
    load_causal_lm(ModelSection(name_or_path=str(tmp_path / "base")))
    with pytest.raises(CheckpointError, match="as float16"):
        load_causal_lm(ModelSection(name_or_path=str(tmp_path / "base"), dtype="float16"))


@pytest.mark.parametrize("stage", ["sft", "rm"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_of_an_adapter(tiny_run, tmp_path, stage, value):
    name = broken(tiny_run.stage(stage), tmp_path / stage, -1, value)
    folders = {"sft": tiny_run.stage("sft"), "rm": tiny_run.stage("rm")}
    with pytest.raises(CheckpointError) as caught:
        open_roles(open_stage_context(tiny_run.recipe), folders | {stage: tmp_path / stage})
    refused(caught.value, tmp_path / stage / adapters.WEIGHTS, name)


def test_saved_weights_are_read_as_they_are(tiny_run):
    tensors = adapters.read_weights(tiny_run.stage("sft"))
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
