"""A stopped evaluation samples no batch again, and ends as one that was not stopped."""

import json
import os
import signal

import pytest

from rlhfctl.run import staging, stop
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.stop import Stopped
from rlhfctl.stages.evaluation import stage
from rlhfctl.stages.shared import responses
from rlhfctl.stages.shared.response_batches import ResponseBatch, ResponseBatches


class Signalling(NullMonitor):
    """Sends the process SIGTERM after some batches of responses."""

    def __init__(self, after):
        self.left = after
        self.unit = ""

    def start(self, stage, total, unit):
        self.unit = unit

    def step(self, done, metrics):
        self.left -= self.unit == "responses"
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_evaluation_keeps_its_responses(tiny_run, tmp_path, monkeypatch):
    evaluation = tiny_run.recipe.evaluation.model_copy(update={"batch_size": 4, "best_of_n": 2})
    recipe = tiny_run.recipe.model_copy(update={"evaluation": evaluation})
    inputs = {"sft": tiny_run.stage("sft"), "rm": tiny_run.stage("rm")}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    measured = []
    measure = responses._measured_batch

    def counted(prompt_set, role, rows):
        measured.append(rows)
        return measure(prompt_set, role, rows)

    monkeypatch.setattr(responses, "_measured_batch", counted)
    expected = stage.run(recipe, inputs, whole, NullMonitor()).metrics
    batches = len(measured)
    with pytest.raises(Stopped), stop.handled():
        stage.run(recipe, inputs, stopped, Signalling(batches - 1))
    assert len(measured) == 2 * batches - 1
    assert staging.has_checkpoints(stopped)
    assert stage.run(recipe, inputs, stopped, NullMonitor()).metrics == expected
    assert len(measured) == 2 * batches
    assert json.loads((stopped / "metrics.json").read_text()) == json.loads(
        (whole / "metrics.json").read_text()
    )
    assert {path.name for path in stopped.iterdir()} == {path.name for path in whole.iterdir()}
    assert not (stopped / "checkpoints").exists()


def test_a_batch_that_was_cut_short_is_sampled_again(tmp_path):
    path = tmp_path / "checkpoints" / "responses-sft.jsonl"
    first, second = (ResponseBatch([text], {"kl": [0.1]}) for text in ("yes", "no"))
    batches = ResponseBatches(path)
    batches.append(first)
    batches.append(second)
    path.write_bytes(path.read_bytes()[:-9])
    reopened = ResponseBatches(path)
    assert (reopened.get(0), reopened.get(1)) == (first, None)
    reopened.append(second)
    assert ResponseBatches(path).batches == [first, second]
