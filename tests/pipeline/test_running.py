"""A stage leaves a whole result with its record, or none."""

import os
import signal

import pytest
from pydantic import ValidationError

from rlhfctl.errors import (
    CheckpointError,
    DivergedError,
    EnvironmentFault,
    LockedError,
    UsageError,
)
from rlhfctl.pipeline import run_stages
from rlhfctl.recipe.base import UndeclaredReadError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.directory import DIVERGED_FILE, RunDirectory
from rlhfctl.run.files import digest
from rlhfctl.run.manifest import Artifact, Manifest
from rlhfctl.run.monitor import read_metrics
from rlhfctl.run.resumption import Resumption
from rlhfctl.run.sealed import seal
from rlhfctl.run.stop import Stopped
from tests.pipeline.small_stages import ALL, recipe


def test_the_record_of_a_finished_stage_holds_everything_it_was_made_from(go, directory):
    go(["sft", "rm"], {"seed": 7})
    record = Manifest.load(directory.manifest).stages["rm"]
    assert record.seed == 7
    assert record.recipe_part["seed"] == 7
    assert record.inputs["sft"] == Manifest.load(directory.manifest).stages["sft"].outputs["sft"]
    assert record.log == Artifact.of(directory.metrics("rm"), directory.root)
    assert record.metrics == {"figure": 0.5}
    assert record.versions["torch"]
    assert record.seconds >= 0
    assert [line["loss"] for line in read_metrics(directory.metrics("rm"))] == [1.0]
    assert sorted(path.name for path in directory.logs.iterdir()) == ["rm.jsonl", "sft.jsonl"]


def test_the_runs_recipe_is_the_one_it_was_run_with(go, directory):
    go(["sft"], {"sft.learning_rate": 0.5})
    wanted = recipe({"sft.learning_rate": 0.5})
    assert load_recipe(directory.recipe).recipe == wanted


def test_reading_an_undeclared_key_fails_the_stage(go, stages):
    stages.during["sft"] = lambda recipe, _output: {"beta": recipe.ppo.beta}
    with pytest.raises(UndeclaredReadError, match="stage sft read the recipe key ppo"):
        go(["sft"])


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


def failing(error):
    def fail(_recipe, output):
        (output / "half").write_text("half")
        raise error

    return fail


def with_checkpoint(output):
    checkpoint = output / "checkpoints" / "step-1"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "state").write_text("1")
    seal(checkpoint, processes=1)


def interrupted(error):
    def fail(_recipe, output):
        with_checkpoint(output)
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
    stages.during["sft"] = interrupted(Stopped(signal.SIGTERM))
    with pytest.raises(
        Stopped, match="a checkpoint of sft was kept; re-running the command resumes"
    ):
        go(["sft"])
    assert "was kept" not in " ".join(listener.notes)  # said once
    seen = []
    stages.during["sft"] = lambda _recipe, output: seen.extend((output / "checkpoints").iterdir())
    go(["sft"])
    assert [path.name for path in seen] == ["step-1"]
    assert directory.stage("sft").exists()
    assert not directory.partial_inputs("sft").exists()


def test_an_interrupted_stage_whose_recipe_changed_is_left_alone(go, stages, directory, listener):
    stages.during["sft"] = interrupted(Stopped(signal.SIGTERM))
    with pytest.raises(Stopped):
        go(["sft"])
    before = [digest(path) for path in (directory.partial("sft"), directory.recipe)]
    with pytest.raises(UsageError, match=r"sft\.learning_rate changed from"):
        go(["sft"], {"sft.learning_rate": 0.5})
    assert stages.ran == []
    assert [digest(path) for path in (directory.partial("sft"), directory.recipe)] == before

    allowed = Resumption(allow_change=("sft.learning_rate",))
    seen = []
    stages.during["sft"] = lambda _recipe, output: seen.extend(output.glob("checkpoints/*"))
    go(["sft"], {"sft.learning_rate": 0.5}, resumption=allowed)
    assert [path.name for path in seen] == ["step-1"]
    (change,) = Manifest.load(directory.manifest).stages["sft"].changes
    assert change.startswith("sft.learning_rate changed from")
    assert any(change in warning for warning in listener.warnings)


def test_a_stage_without_a_usable_checkpoint_is_not_said_to_have_one(go, stages, listener):
    stages.during["sft"] = interrupted(CheckpointError("no checkpoint of this stage is usable"))
    with pytest.raises(CheckpointError):
        go(["sft"])
    assert not any("kept" in note for note in listener.notes)


def test_a_batch_at_which_a_stage_diverged_is_kept_and_named(go, stages, directory):
    def diverge(_recipe, output):
        (output / DIVERGED_FILE).write_text("{}\n")
        raise DivergedError("NaN", hint="lower the rate")

    stages.during["sft"] = diverge
    with pytest.raises(DivergedError) as caught:
        go(["sft"])
    assert (directory.logs / "sft.diverged.jsonl").read_text() == "{}\n"
    assert f"The batch is in {directory.logs / 'sft.diverged.jsonl'}." in caught.value.hint
    assert not directory.partial("sft").exists()


def test_an_interrupted_stage_starts_again_by_force(go, stages):
    stages.during["sft"] = interrupted(Stopped(signal.SIGTERM))
    with pytest.raises(Stopped):
        go(["sft"])
    seen = []
    stages.during["sft"] = lambda _recipe, output: seen.extend(output.glob("checkpoints"))
    go(["sft"], {"sft.learning_rate": 0.5}, resumption=Resumption(force=True))
    assert seen == []


def test_a_change_of_processes_needs_permission(go, stages, directory):
    stages.during["sft"] = interrupted(Stopped(signal.SIGTERM))
    with pytest.raises(Stopped):
        go(["sft"])
    seal(directory.partial("sft") / "checkpoints" / "step-1", processes=2)
    with pytest.raises(UsageError, match="processes changed from 2 to 1"):
        go(["sft"])
    stages.during.clear()
    go(["sft"], resumption=Resumption(allow_world_size_change=True))
    (change,) = Manifest.load(directory.manifest).stages["sft"].changes
    assert "not bit-exact" in change


def test_sigterm_ends_a_stage_cleanly_and_restores_the_old_handler(go, stages, directory):
    def terminate(_recipe, _output):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    stages.during["rm"] = terminate
    with pytest.raises(Stopped):
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
