"""The averaged reward model scores as a plain transformers model with the mean of merged weights."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models import adapters
from rlhfctl.models.averaging import average_reward_models
from rlhfctl.models.hub import model_source
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared.averaged_rm import is_average, with_average
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from tests.conftest import TinyRun

PROMPTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
RESPONSES = [[20, 21, 22], [23, 24, 25, 26], [27]]


@pytest.fixture
def members(tiny_run: TinyRun, tmp_path: Path) -> list[Path]:
    """Three reward models: the run's, and two with other weights everywhere."""
    folders = [tiny_run.stage("rm")]
    for number in (1, 2):
        folder = tmp_path / f"member-{number}"
        shutil.copytree(folders[0], folder)
        generator = torch.Generator().manual_seed(number)
        weights = {
            name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in load_file(folder / adapters.WEIGHTS).items()
        }
        save_file(weights, folder / adapters.WEIGHTS, metadata={"format": "pt"})
        folders.append(folder)
    return folders


def merged_mean_scores(base: str, folders: list[Path], pad: int) -> torch.Tensor:
    """Scores by transformers alone, from the mean over merged models of every weight."""
    states = []
    for folder in folders:
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        merged = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
        states.append(
            {
                name.replace("modules_to_save.default.", ""): tensor.double()
                for name, tensor in merged.state_dict().items()
                if "original_module" not in name
            }
        )
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).double()
    mean = {name: sum(state[name] for state in states) / len(states) for name in states[0]}
    model.load_state_dict(mean)
    model.config.pad_token_id = pad
    scores = []
    with torch.no_grad():
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
            ids = torch.tensor([prompt + response])
            logits = model.eval()(ids, attention_mask=torch.ones_like(ids)).logits
            scores.append(float(logits[0, 0]))
    return torch.tensor(scores)


def test_scores_are_those_of_the_mean_of_merged_weights(
    tiny_run: TinyRun, members: list[Path], tmp_path: Path
) -> None:
    sources = ["rm", *map(str, members[1:])]
    ppo = tiny_run.recipe.ppo.model_copy(
        update={
            "reward_rule": "weight_average",
            "reward_sources": [
                tiny_run.recipe.ppo.reward_sources[0].model_copy(update={"source": source})
                for source in sources
            ],
        }
    )
    rm = tiny_run.recipe.reward_model.model_copy(update={"calibration_samples": 32})
    recipe = tiny_run.recipe.model_copy(update={"ppo": ppo, "reward_model": rm})
    context = open_stage_context(recipe)
    inputs = {"sft": tiny_run.stage("sft"), "rm": members[0]}
    averaged = with_average(context, inputs, tmp_path, NullMonitor())
    assert is_average(averaged["rm"])
    roles = open_roles(context, averaged)
    batch = Sequences.from_lists(PROMPTS, RESPONSES, roles.pad_token_id, roles.device)
    expected = merged_mean_scores(model_source(recipe.model), members, roles.pad_token_id)
    torch.testing.assert_close(roles.raw_scores(batch), expected, atol=1e-5, rtol=0)
    # None of the members scores so, and neither does the mean of their scores by much.
    single = open_roles(context, inputs).raw_scores(batch)
    assert float((single - expected).abs().max()) > 1e-2
    written = (averaged["rm"] / adapters.WEIGHTS).stat().st_mtime_ns
    again = with_average(context, inputs, tmp_path, NullMonitor())["rm"]
    assert (again / adapters.WEIGHTS).stat().st_mtime_ns == written
    (members[2] / adapters.WEIGHTS).write_bytes((members[1] / adapters.WEIGHTS).read_bytes())
    again = with_average(context, inputs, tmp_path, NullMonitor())["rm"]
    assert (again / adapters.WEIGHTS).stat().st_mtime_ns > written


def test_stacking_rounds_no_weight(tiny_run: TinyRun, members: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "average"
    target.mkdir()
    average_reward_models(members, target, tiny_run.recipe.model, 0)
    stacked, parts = (
        load_file(target / adapters.WEIGHTS),
        [load_file(member / adapters.WEIGHTS) for member in members],
    )
    name = next(name for name in stacked if "lora_A" in name)
    assert torch.equal(stacked[name], torch.cat([part[name] for part in parts], dim=0))
    configs = [adapters.read_config(folder) for folder in (target, members[0])]
    assert configs[0].r == 3 * configs[1].r
    assert configs[0].lora_alpha == configs[1].lora_alpha


def test_rank_stabilised_adapters_are_averaged_by_their_own_scale(
    tiny_run: TinyRun, members: list[Path], tmp_path: Path
) -> None:
    copies = []
    for number, member in enumerate(members):
        copies.append(tmp_path / f"copy-{number}")
        shutil.copytree(member, copies[-1])
        adapters.rewrite_config(copies[-1], {"use_rslora": True})
    target = tmp_path / "average"
    target.mkdir()
    average_reward_models(copies, target, tiny_run.recipe.model, 0)
    base = model_source(tiny_run.recipe.model)
    mean = merged_mean_scores(base, copies, 0)
    torch.testing.assert_close(merged_mean_scores(base, [target], 0), mean, atol=1e-5, rtol=0)
    assert not torch.allclose(merged_mean_scores(base, members, 0), mean, atol=1e-2)
    with pytest.raises(CheckpointError, match="its rank, alpha or modules"):
        average_reward_models([copies[0], members[1]], target, tiny_run.recipe.model, 0)


def test_models_that_have_no_average_are_refused(
    tiny_run: TinyRun, members: list[Path], tmp_path: Path
) -> None:
    target = tmp_path / "average"
    target.mkdir()
    adapters.rewrite_config(members[1], {"use_dora": True})
    adapters.rewrite_config(members[2], {"lora_alpha": 7})
    for number, reason in ((1, "it uses use_dora"), (2, "its rank, alpha or modules")):
        with pytest.raises(CheckpointError, match=f"member-{number}: .*{reason}"):
            average_reward_models([members[0], members[number]], target, tiny_run.recipe.model, 0)
    (members[1] / adapters.CONFIG).unlink()
    with pytest.raises(CheckpointError, match="adapters and whole models have no average"):
        average_reward_models(members[:2], target, tiny_run.recipe.model, 0)


def test_whole_models_are_averaged_weight_by_weight(tiny_full_run: TinyRun, tmp_path: Path) -> None:
    first, second, target = tiny_full_run.stage("rm"), tmp_path / "second", tmp_path / "average"
    shutil.copytree(first, second)
    target.mkdir()
    weights = load_file(first / "model.safetensors")
    save_file({name: 3.0 * w for name, w in weights.items()}, second / "model.safetensors")
    average_reward_models([first, second], target, tiny_full_run.recipe.model, 0)
    averaged = load_file(target / "model.safetensors")
    assert averaged.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(averaged[name], 2.0 * weight, atol=0, rtol=1e-6)
