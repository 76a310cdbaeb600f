"""Stale stages run again, with the reasons; the others are skipped."""

import pytest

from rlhfctl.pipeline import needed_stages
from rlhfctl.run.resumption import Resumption
from rlhfctl.stage_table import STAGES
from tests.pipeline.small_stages import ALL, recipe, weights


def test_no_stage_runs_when_nothing_changed(go, stages, listener, directory):
    go(ALL)
    before = directory.manifest.read_bytes()
    results = go(ALL)
    assert stages.ran == []
    assert [result.status for result in results] == ["skipped"] * 4
    assert listener.notes == [
        f"[{number}/4] {stage.title}: up to date, skipped" for number, stage in enumerate(STAGES, 1)
    ]
    assert directory.manifest.read_bytes() == before


def test_a_changed_key_reruns_its_stage_and_those_that_read_its_result(go, stages, listener):
    go(ALL)
    go(ALL, {"reward_model.learning_rate": 0.5})
    assert stages.ran == ["rm", "ppo", "eval"]
    assert "Re-running rm: reward_model.learning_rate changed from 0.0001 to 0.5" in listener.notes
    assert "Re-running ppo: input rm (rm) changed" in listener.notes


def test_changed_stop_tokens_rerun_sft(go, stages):
    go(["sft", "rm"])
    go(ALL, {"generation.stop_tokens": ["."]})
    assert stages.ran == ALL


@pytest.mark.parametrize("key", ["sft.max_length", "reward_model.max_length"])
def test_a_changed_max_length_reruns_the_evaluation(go, stages, key):
    go(ALL)
    go(["eval"], {key: 100})
    assert stages.ran == ["eval"]


def test_a_changed_rollout_batch_size_reruns_the_reward_model(go, stages):
    go(["sft", "rm"])
    go(["sft", "rm"], {"ppo.rollout_batch_size": 64})
    assert stages.ran == ["rm"]


def test_a_changed_seed_reruns_every_stage(go, stages):
    go(ALL)
    go(ALL, {"seed": 1})
    assert stages.ran == ALL


def test_an_identical_result_keeps_the_later_stages_up_to_date(go, stages):
    go(ALL)
    go(["sft"], resumption=Resumption(force=True))
    assert stages.ran == ["sft"]
    go(ALL)
    assert stages.ran == []


def test_a_changed_gate_needs_no_new_evaluation(go, stages):
    go(ALL)
    go(ALL, {"evaluation.gates": {"win_rate": ">=0.5"}})
    assert stages.ran == []


def test_force_reruns_only_the_requested_stages(go, stages, listener):
    go(ALL)
    go(["rm"], resumption=Resumption(force=True))
    assert stages.ran == ["rm"]
    assert listener.notes == ["Re-running rm: --force", "[1/1] Reward model"]


def test_a_modified_result_is_made_again(go, stages, listener, directory):
    go(ALL)
    good = weights(directory, "sft")
    (directory.stage("sft") / "weights").write_text("other")
    go(ALL)
    assert stages.ran == ["sft"]
    assert "Re-running sft: output sft was modified" in listener.notes
    assert weights(directory, "sft") == good


def test_a_changed_local_file_reruns_the_stages_that_read_it(go, stages, tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_text("{}")
    changes = {"data.comparisons.source": str(source)}
    go(ALL, changes)
    go(ALL, changes)
    assert stages.ran == []
    source.write_text('{"more": 1}')
    go(ALL, changes)
    # PPO's held-out prompts are those that no comparison trains on.
    assert stages.ran == ["rm", "ppo", "eval"]


def test_a_changed_reward_bench_file_reruns_the_evaluation(go, stages, tmp_path):
    bench = tmp_path / "bench.jsonl"
    given = {"evaluation.reward_bench": str(bench)}
    bench.write_text("one\n")
    go(["sft", "eval"], given)
    go(["eval"], given)
    assert stages.ran == []
    bench.write_text("two\n")
    go(["eval"], given)
    assert stages.ran == ["eval"]


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, ALL),
        ({"reward_model.sft": "x"}, ALL),
        ({"ppo.rm": "x"}, ["sft", "ppo", "eval"]),
        ({"ppo.sft": "x"}, ALL),
        ({"ppo.sft": "x", "reward_model.sft": "x"}, ["rm", "ppo", "eval"]),
        ({"ppo.sft": "x", "ppo.rm": "x"}, ["ppo", "eval"]),
    ],
)
def test_a_whole_run_skips_stages_that_the_recipe_replaces(changes, needed):
    assert needed_stages(recipe(changes)) == needed
