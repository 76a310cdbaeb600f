"""The pipeline runs stale stages, reports the reasons, and never leaves a partial result."""

import json
import os
import signal
from typing import Any

import pytest
from pydantic import ValidationError

from rlhfctl.errors import (
    CheckpointError,
    DivergedError,
    EnvironmentFault,
    LockedError,
    PreemptedError,
)
from rlhfctl.pipeline import Terminated, needed_stages, run_stages
from rlhfctl.recipe.base import UndeclaredReadError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.manifest import Manifest, StageOutcome
from rlhfctl.run.monitor import NullMonitor, read_metrics
from rlhfctl.stage_table import STAGE_NAMES, STAGES

ALL = list(STAGE_NAMES)


class Listener(NullMonitor):
    def __init__(self):
        self.notes = []
        self.warnings = []

    def note(self, message):
        self.notes.append(message)

    def warn(self, message):
        self.warnings.append(message)


class Stages:
    """Small stages: each writes what it was made from, and reports one step."""

    def __init__(self):
        self.ran = []
        self.inputs = {}
        self.during = {}

    def __call__(self, stage):
        name = stage.name

        def run(recipe, inputs, output, monitor):
            self.ran.append(name)
            self.inputs[name] = dict(inputs)
            monitor.start(name, 1, "steps")
            monitor.step(1, {"loss": 1.0})
            made_from = {key: (path / "weights").read_text() for key, path in inputs.items()}
            part = recipe.model_dump(mode="json")[
                {"rm": "reward_model", "eval": "evaluation"}.get(name, name)
            ]
            (output / "weights").write_text(json.dumps([name, recipe.seed, part, made_from]))
            metrics = {"figure": 0.5}
            if name in self.during:
                metrics |= self.during[name](recipe, output) or {}
            monitor.finish()
            return StageOutcome(metrics)

        return run


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "runs" / "one")


@pytest.fixture
def stages():
    return Stages()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def go(directory, stages, listener):
    def go(names, changes=None, **more):
        stages.ran.clear()
        listener.notes.clear()
        listener.warnings.clear()
        return run_stages(recipe(changes), directory, names, listener, load=stages, **more)

    return go


def recipe(changes=None):
    values: dict[str, Any] = {"name": "one", "model": {"name_or_path": "org/model"}}
    for key, value in (changes or {}).items():
        section = values
        *above, last = key.split(".")
        for name in above:
            section = section.setdefault(name, {})
        section[last] = value
    return Recipe.model_validate(values)


def weights(directory, stage):
    return (directory.stage(stage) / "weights").read_text()


def test_each_stage_gets_the_results_of_those_before_it(go, stages, directory):
    results = go(ALL)
    assert stages.ran == ALL
    at = directory.stage
    assert stages.inputs == {
        "sft": {},
        "rm": {"sft": at("sft")},
        "ppo": {"sft": at("sft"), "rm": at("rm")},
        "eval": {"sft": at("sft"), "rm": at("rm"), "ppo": at("ppo")},
    }
    assert [(result.stage, result.status) for result in results] == [(n, "done") for n in ALL]


def test_the_record_of_a_finished_stage_holds_everything_it_was_made_from(go, directory):
    go(["sft", "rm"], {"seed": 7})
    record = Manifest.load(directory.manifest).stages["rm"]
    assert record.seed == 7
    assert record.recipe_part["seed"] == 7
    assert record.inputs["sft"] == Manifest.load(directory.manifest).stages["sft"].outputs["sft"]
    assert record.metrics == {"figure": 0.5}
    assert record.versions["torch"]
    assert record.seconds >= 0
    assert [line["loss"] for line in read_metrics(directory.metrics("rm"))] == [1.0]
    assert sorted(path.name for path in directory.logs.iterdir()) == ["rm.jsonl", "sft.jsonl"]


def test_the_runs_recipe_is_the_one_it_was_run_with(go, directory):
    go(["sft"], {"sft.learning_rate": 0.5})
    wanted = recipe({"sft.learning_rate": 0.5})
    assert load_recipe(directory.recipe).recipe == wanted


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


def test_reading_an_undeclared_key_fails_the_stage(go, stages):
    stages.during["sft"] = lambda recipe, _output: {"beta": recipe.ppo.beta}
    with pytest.raises(UndeclaredReadError, match="stage sft read the recipe key ppo"):
        go(["sft"])


def test_a_changed_seed_reruns_every_stage(go, stages):
    go(ALL)
    go(ALL, {"seed": 1})
    assert stages.ran == ALL


def test_an_identical_result_keeps_the_later_stages_up_to_date(go, stages):
    go(ALL)
    go(["sft"], force=True)
    assert stages.ran == ["sft"]
    go(ALL)
    assert stages.ran == []


def test_a_changed_gate_needs_no_new_evaluation(go, stages):
    go(ALL)
    go(ALL, {"evaluation.gates": {"win_rate": ">=0.5"}})
    assert stages.ran == []


def test_force_reruns_only_the_requested_stages(go, stages, listener):
    go(ALL)
    go(["rm"], force=True)
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


@pytest.mark.parametrize(
    ("stage", "missing", "command"),
    [("rm", "sft", "rlhfctl sft"), ("ppo", "sft", "rlhfctl sft"), ("eval", "sft", "rlhfctl sft")],
)
def test_a_missing_input_names_the_command_that_makes_it(go, stages, stage, missing, command):
    with pytest.raises(CheckpointError) as caught:
        go([stage])
    assert f"{command} --run one" in str(caught.value)
    assert stages.ran == []


def test_a_missing_reward_model_names_train_rm(go):
    go(["sft"])
    with pytest.raises(CheckpointError, match="rlhfctl train-rm --run one"):
        go(["ppo"])


def test_a_damaged_input_is_refused(go, directory, stages):
    go(["sft"])
    (directory.stage("sft") / "weights").write_text("damaged")
    with pytest.raises(
        CheckpointError, match="rm needs an SFT checkpoint, but output sft was modified"
    ):
        go(["rm"])
    assert stages.ran == []


def test_eval_runs_on_sft_alone_without_a_reward_model_and_policy(go, stages):
    go(["sft", "eval"])
    assert set(stages.inputs["eval"]) == {"sft"}


def test_an_outdated_input_raises_a_warning(go, listener):
    go(["sft", "rm"])
    go(["rm"], {"sft.learning_rate": 0.5})
    assert (
        "sft is out of date (sft.learning_rate changed from 0.0002 to 0.5)" in listener.warnings[0]
    )
    go(["sft"], {"sft.learning_rate": 0.5})
    go(["ppo"], {"sft.learning_rate": 0.5})
    assert "rm is out of date (made from an earlier sft)" in listener.warnings[0]


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


def fail(recipe, output):
    raise DivergedError("it cannot go on")


def test_a_failed_rerun_restores_the_earlier_recipe(go, stages, directory):
    go(["sft"])
    kept = directory.recipe.read_text()
    stages.during["sft"] = fail
    with pytest.raises(DivergedError):
        go(["sft"], {"sft.learning_rate": 0.5})
    assert directory.recipe.read_text() == kept


def test_a_failed_first_run_keeps_its_recipe(go, stages, directory):
    stages.during["sft"] = fail
    with pytest.raises(DivergedError):
        go(["sft"], {"sft.learning_rate": 0.5})
    assert load_recipe(directory.recipe).recipe.sft.learning_rate == 0.5


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "weights").write_text("outside")
    return folder


def test_checkpoints_named_by_the_recipe_replace_the_runs_own(go, stages, outside, directory):
    go(["ppo"], {"ppo.sft": str(outside), "ppo.rm": str(outside)})
    assert stages.inputs["ppo"] == {"sft": outside, "rm": outside}
    inputs = Manifest.load(directory.manifest).stages["ppo"].inputs
    assert inputs["sft"].path == str(outside)
    go(["eval"], {"ppo.sft": str(outside), "ppo.rm": str(outside)})
    assert stages.inputs["eval"]["sft"] == outside
    assert stages.inputs["eval"]["ppo"] == directory.stage("ppo")


def test_a_changed_external_checkpoint_reruns_the_stage(go, stages, outside):
    changes = {"reward_model.sft": str(outside)}
    go(["rm"], changes)
    (outside / "weights").write_text("changed")
    go(["rm"], changes)
    assert stages.ran == ["rm"]


def test_a_missing_external_checkpoint_is_refused(go, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        go(["rm"], {"reward_model.sft": str(tmp_path / "nowhere")})


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


def failing(error):
    def fail(_recipe, output):
        (output / "half").write_text("half")
        raise error

    return fail


def interrupted(error):
    def fail(_recipe, output):
        (output / "checkpoints" / "step-1").mkdir(parents=True, exist_ok=True)
        raise error

    return fail


@pytest.mark.parametrize("error", [DivergedError("NaN"), ValueError("bug"), KeyboardInterrupt()])
def test_a_failed_stage_leaves_the_earlier_result_its_record_and_its_metrics(
    go, stages, directory, error
):
    go(ALL)
    kept = [directory.manifest, directory.metrics("rm"), directory.stage("rm") / "weights"]
    before = [path.read_bytes() for path in kept]
    stages.during["rm"] = failing(error)
    with pytest.raises(type(error)):
        go(ALL, {"reward_model.learning_rate": 0.5})
    assert [path.read_bytes() for path in kept] == before
    assert not directory.partial("rm").exists()
    assert len(read_metrics(directory.failed_metrics("rm"))) == 1


def test_a_failed_first_run_leaves_its_metrics_and_no_result(go, stages, directory):
    stages.during["sft"] = failing(DivergedError("NaN"))
    with pytest.raises(DivergedError):
        go(ALL)
    assert not directory.stage("sft").exists()
    assert Manifest.load(directory.manifest).stages == {}
    assert len(read_metrics(directory.metrics("sft"))) == 1


def test_a_run_resumes_with_the_stage_that_failed(go, stages):
    stages.during["ppo"] = failing(ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        go(ALL)
    stages.during.clear()
    go(ALL)
    assert stages.ran == ["ppo", "eval"]


def test_an_interrupted_stage_resumes_from_its_checkpoint(go, stages, listener, directory):
    stages.during["sft"] = interrupted(PreemptedError("asked to end"))
    with pytest.raises(PreemptedError):
        go(["sft"])
    assert "a checkpoint of sft was kept; re-running the command resumes from it" in listener.notes
    seen = []
    stages.during["sft"] = lambda _recipe, output: seen.extend((output / "checkpoints").iterdir())
    go(["sft"])
    assert [path.name for path in seen] == ["step-1"]
    assert directory.stage("sft").exists()
    assert not directory.partial_inputs("sft").exists()


def test_an_interrupted_stage_starts_again_when_its_recipe_changed(go, stages):
    stages.during["sft"] = interrupted(PreemptedError("asked to end"))
    with pytest.raises(PreemptedError):
        go(["sft"])
    seen = []
    stages.during["sft"] = lambda _recipe, output: seen.extend(output.glob("checkpoints"))
    go(["sft"], {"sft.learning_rate": 0.5})
    assert seen == []


def test_sigterm_ends_a_stage_cleanly_and_restores_the_old_handler(go, stages, directory):
    def terminate(_recipe, _output):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stages.during["rm"] = terminate
    with pytest.raises(Terminated):
        go(ALL)
    assert signal.getsignal(signal.SIGTERM) is before
    assert set(Manifest.load(directory.manifest).stages) == {"sft"}
    assert not directory.partial("rm").exists()


def test_a_crash_between_result_and_record_is_undone_by_the_next_command(go, stages, directory):
    go(ALL)
    directory.stage("sft").rename(directory.replaced("sft"))
    directory.stage("sft").mkdir()
    go(ALL)
    assert stages.ran == []
    assert not directory.replaced("sft").exists()


def test_a_nan_metric_is_recorded_as_null_with_a_warning(go, stages, listener, directory):
    stages.during["rm"] = lambda *_: {"per_annotator": {"ann": {"accuracy": float("nan")}}}
    go(["sft", "rm"])
    metrics = Manifest.load(directory.manifest).stages["rm"].metrics
    assert metrics["per_annotator"]["ann"]["accuracy"] is None
    assert "per_annotator.ann.accuracy is nan" in listener.warnings[0]


def test_a_run_is_locked_while_a_stage_works(go, stages, directory):
    def again(_recipe, _output):
        with pytest.raises(LockedError), directory.lock():
            pass

    stages.during["sft"] = again
    go(["sft"])


def test_an_invalid_gate_is_refused_before_any_stage_runs(go, directory):
    with pytest.raises(ValidationError, match="win_rate: 'high' is not a bound"):
        go(ALL, {"evaluation.gates": {"win_rate": "high"}})
    assert not directory.root.exists()


def test_a_run_folder_below_a_file_is_refused(tmp_path, stages, listener):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault):
        run_stages(recipe(), RunDirectory(tmp_path / "file" / "one"), ALL, listener, load=stages)


def test_a_damaged_manifest_stops_everything(go, stages, directory):
    go(ALL)
    directory.manifest.write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        go(ALL)
    assert stages.ran == []
