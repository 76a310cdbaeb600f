"""Scores from reward models, functions and servers, over real files, imports and connections."""

import json
import shutil

import pytest
import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.permissions import ALLOW_CODE
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_sources import RewardSources, extra_reward_models
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(
        "def length(completions):\n    return [float(len(text)) for text in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOW_CODE, "1")
    return tmp_path


def section(tmp_path, sources, **keys):
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({"ppo": {"reward_sources": sources, **keys}}))
    return load_recipe(path).recipe.ppo


def scored(tiny_run, tmp_path, sources, columns=None, **keys):
    """Return the rewards of a recipe's sources, and a batch of two real answers."""
    session = open_stage_context(tiny_run.recipe)
    chosen = section(tmp_path, sources, **keys)
    inputs = {"sft": tiny_run.stage("sft")} | (
        {"rm": tiny_run.stage("rm")} if chosen.uses_rm else {}
    )
    roles = open_roles(session, inputs, extra_reward_models(chosen))
    prompts = [[{"role": "user", "content": text}] for text in ("What is 2 plus 2?", "Hello?")]
    pairs = zip(
        prompts, [[{"role": "assistant", "content": t}] for t in ("4.", "Hi you!")], strict=True
    )
    ids = list(session.formatter.pairs(list(pairs)))
    batch = Sequences.from_lists([i[0] for i in ids], [i[1] for i in ids], roles.pad_token_id)
    rows = PromptRows(prompts, columns or {})
    return RewardSources.open(chosen).over(roles, session.formatter, rows), batch, roles


def test_several_reward_models_each_keep_their_own_head_and_scale(tiny_run, here):
    other = here / "other"
    shutil.copytree(tiny_run.stage("rm"), other)
    scale = other / "score_normalization.json"
    kept = json.loads(scale.read_text())
    scale.write_text(json.dumps(kept | {"mean": kept["mean"] - 2 * kept["deviation"]}))
    rewards, batch, roles = scored(tiny_run, here, [{"source": "rm"}, {"source": "./other"}])
    first, second = rewards.scores_per_source(batch, [0, 1])
    torch.testing.assert_close(second, first + 2.0, atol=1e-5, rtol=0)
    assert torch.equal(first, roles.scores(batch))
    assert [source.name for source in rewards.sources] == ["rm", "other"]


def test_a_missing_folder_is_named(here):
    with pytest.raises(CheckpointError, match="does not exist"):
        extra_reward_models(section(here, [{"source": "rm"}, {"source": "./nowhere"}]))


def ppo_run(tiny_run, here, inputs, *overrides):
    recipe = load_recipe(write_recipe(here, tiny_run.recipe), list(overrides)).recipe
    output = here / "out"
    output.mkdir()
    return ppo.run(recipe, {name: tiny_run.stage(name) for name in inputs}, output, NullMonitor())


def write_recipe(folder, recipe):
    from rlhfctl.recipe.load import dump_recipe

    path = folder / "tiny.yaml"
    path.write_text(dump_recipe(recipe))
    return path


def test_ppo_runs_on_a_function_alone_without_any_reward_model(tiny_run, here):
    metrics = ppo_run(
        tiny_run,
        here,
        ["sft"],
        "ppo.reward_sources=[{source: 'my_scores:length', weight: 0.1}]",
        "ppo.critic_init=sft",
        "ppo.ptx_coefficient=1.0",
        "ppo.ptx_batch_size=8",
        "ppo.responses_per_prompt=2",
    ).metrics
    assert metrics["score"] > 0
    assert metrics["ptx_loss"] > 0
    assert metrics["kl"] != 0
    assert (here / "out" / "critic" / "adapter_model.safetensors").is_file()
    assert not any("reward model" in check for check in metrics["gate"])


def test_ppo_runs_without_a_critic_on_an_ensemble(tiny_run, here):
    shutil.copytree(tiny_run.stage("rm"), here / "other")
    metrics = ppo_run(
        tiny_run,
        here,
        ["sft", "rm"],
        "ppo.reward_sources=[{source: rm}, {source: ./other}]",
        "ppo.reward_rule=worst",
        "ppo.advantage_estimator=batch_mean",
    ).metrics
    assert metrics["score_disagreement"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["score_rm"] == pytest.approx(metrics["score_other"])
    assert not (here / "out" / "critic").exists()
