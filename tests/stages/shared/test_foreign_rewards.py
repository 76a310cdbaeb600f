"""Reward models from elsewhere in PPO and the evaluation, without a reward model of our own."""

import json
import shutil

import pytest
import torch

from rlhfctl.errors import CheckpointError, DivergedError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.foreign_files import is_foreign
from rlhfctl.models.foreign_scorer import ForeignScorer
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.recipe.permissions import ALLOW_CODE
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.recipe.reward_sources import RewardModelLoading
from rlhfctl.recipe.view import view
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stage_table import EVALUATION, PPO
from rlhfctl.stages.evaluation import stage as evaluation
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.shared.foreign_rewards import read_scales
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_sources import RewardSources, extra_reward_models
from tests.conftest import tiny_recipe
from tests.foreign import chatml, inst


class Heard(NullMonitor):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    root = tmp_path_factory.mktemp("elsewhere")
    return {"chatml": str(chatml(root / "chatml")), "inst": str(inst(root / "inst"))}


@pytest.fixture(scope="module")
def run(tiny_run, elsewhere, tmp_path_factory):
    """PPO against one foreign model, then the evaluation judged by another."""
    source = f"{{source: {elsewhere['chatml']}, max_length: 48, batch_size: 4}}"
    recipe = tiny_recipe(
        f"ppo.reward_sources=[{source}]",
        f"evaluation.judge_rm={elsewhere['inst']}",
        "evaluation.best_of_n=2",
        "evaluation.best_of_n_prompts=4",
    )
    root = tmp_path_factory.mktemp("run")
    heard = Heard()
    inputs = {"sft": tiny_run.stage("sft")}
    results = {}
    for name, stage, table in (("ppo", ppo, PPO), ("eval", evaluation, EVALUATION)):
        (root / name).mkdir()
        results[name] = stage.run(view(recipe, table), inputs, root / name, heard).metrics
        inputs[name] = root / name
    return root, results, heard.warnings


def test_ppo_needs_no_reward_model_of_its_own(run):
    root, results, _ = run
    metrics = results["ppo"]
    assert metrics["kl"] != 0
    assert not any("reward model" in check for check in metrics["gate"])
    head = [line for check, line in metrics["gate"].items() if check == "critic can learn"]
    assert head, "the critic starts from SFT with a value head of zeros"
    assert (root / "ppo" / "critic" / "adapter_model.safetensors").is_file()


def test_scores_are_on_the_scale_of_sft_responses(run, elsewhere):
    """The scores' mean and deviation, from the answers that the evaluation kept."""
    root, results, _ = run
    (scale,) = read_scales(root / "ppo").values()
    assert scale.samples > 8
    sft = [json.loads(line) for line in (root / "eval" / "answers.jsonl").read_text().splitlines()]
    loading = RewardModelLoading(max_length=48)
    scorer = ForeignScorer.load(elsewhere["chatml"], loading, "test")
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in sft]
    for policy, key in (("sft", "opponent"), ("ppo", "ppo")):
        raw = scorer.scores(prompts, [row[key] for row in sft])
        expected = ((raw - scale.mean) / scale.deviation).tolist()
        scored = json.loads((root / "eval" / "scores.json").read_text())["policies"][policy]
        assert scored["proxy"] == pytest.approx(expected, abs=1e-4)
    assert "proxy_win_rate" in results["eval"]


def test_another_one_judges(run, elsewhere):
    root, results, _ = run
    judge = results["eval"]["judges"]["held_out_rm"]
    rows = [json.loads(line) for line in (root / "eval" / "answers.jsonl").read_text().splitlines()]
    scorer = ForeignScorer.load(elsewhere["inst"], RewardModelLoading(), "test")
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    ours, theirs = (
        scorer.scores(prompts, [row[key] for row in rows]) for key in ("ppo", "opponent")
    )
    wins = float((ours > theirs).float().mean() + 0.5 * (ours == theirs).float().mean())
    assert judge["win_rate"] == pytest.approx(wins)
    assert "true_reward" in results["eval"]["best_of_n"]


def test_inputs_that_were_cut_are_counted_and_said(run):
    _, _, warnings = run
    cut = [warning for warning in warnings if "without the beginning of their prompt" in warning]
    assert len(cut) == 2, "PPO and the evaluation say it once each"
    assert all("chatml: " in warning and "48 tokens" in warning for warning in cut)


class Characters:
    def decode(self, ids):
        return "".join(map(chr, ids))


def opened(*sources):
    return RewardSources.open(PPOSection.model_validate({"reward_sources": list(sources)}))


def test_several_are_loaded_once_and_combined_with_a_function(elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOW_CODE, "1")
    (tmp_path / "lengths.py").write_text(
        "def f(completions):\n    return list(map(len, completions))"
    )
    sources = opened(
        {"source": elsewhere["chatml"], "normalization": "none"},
        {"source": "lengths:f"},
        {"source": elsewhere["inst"]},
    )
    rows = PromptRows(["What is two plus two?", "Hello"])
    sources.load_scorers(rows)
    assert list(sources.normalised_scorers()) == [elsewhere["inst"]]
    sources.scales[elsewhere["inst"]] = ScoreNormalization(1.0, 2.0, 10)
    batch = Sequences.from_lists([[1]] * 2, [list(map(ord, text)) for text in ("four", "hi!")], 0)
    rewards = sources.over(None, Characters(), rows)
    again = sources.over(None, Characters(), rows)
    assert again.sources[0].scorer is rewards.sources[0].scorer
    assert [source.name for source in rewards.sources] == ["chatml", "lengths:f", "inst"]
    first, second, third = rewards.scores_per_source(batch, [0, 1])
    raw = {
        name: sources.scorers[elsewhere[name]].scores(rows.prompts, ["four", "hi!"])
        for name in ("chatml", "inst")
    }
    assert torch.equal(first, raw["chatml"])
    assert second.tolist() == [4.0, 3.0]
    torch.testing.assert_close(third, (raw["inst"] - 1.0) / 2.0)


def test_the_commit_of_a_hub_model_is_noted(elsewhere, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--lab--judge"
    shutil.copytree(elsewhere["inst"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sources = opened({"source": "hub:lab/judge"}, {"source": elsewhere["chatml"]})
    sources.load_scorers(PromptRows(["Hello"]))
    assert sources.revisions() == [f"hub:lab/judge: commit {commit}"]


def test_our_own_folders_are_not_foreign(tiny_run, elsewhere, tmp_path):
    rm = str(tiny_run.stage("rm"))
    assert (is_foreign(rm), is_foreign(elsewhere["inst"])) == (False, True)
    section = PPOSection.model_validate(
        {"reward_sources": [{"source": "rm"}, {"source": rm}, {"source": elsewhere["inst"]}]}
    )
    assert list(map(str, extra_reward_models(section))) == [rm]
    assert not is_foreign(str(tmp_path / "absent"))


def test_a_model_that_cannot_tell_responses_apart_has_no_scale(tiny_run, elsewhere, tmp_path):
    flat = inst(tmp_path / "flat")
    from safetensors.torch import load_file, save_file

    weights = load_file(flat / "model.safetensors")
    weights["score.weight"] *= 0
    save_file(weights, flat / "model.safetensors", metadata={"format": "pt"})
    recipe = tiny_recipe(f"ppo.reward_sources=[{{source: {flat}}}]")
    (tmp_path / "out").mkdir()
    with pytest.raises(DivergedError, match="same score"):
        ppo.run(recipe, {"sft": tiny_run.stage("sft")}, tmp_path / "out", NullMonitor())


def test_a_damaged_scale_is_named(tmp_path):
    assert read_scales(tmp_path) == {}
    (tmp_path / "reward_scales.json").write_text('{"a": {"mean": 1}}')
    with pytest.raises(CheckpointError, match="is damaged"):
        read_scales(tmp_path)
