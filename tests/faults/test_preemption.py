"""SIGTERM to one of two processes ends the command in 143, and leaves no trace in the weights."""

import pytest

from tests.faults.stopped import Runs, trials


@pytest.mark.faults
@pytest.mark.parametrize("command", ["sft", "ppo"])
def test_one_of_two_processes_is_stopped(tmp_path, command):
    before = ["sft", "train-rm"] if command == "ppo" else []
    results = trials(tmp_path, 4, [command], seed=1, before=before)
    assert [trial for trial in results if not trial.sound] == []


@pytest.mark.faults
@pytest.mark.parametrize(("rank", "delay"), [(0, 0.0), (1, 0.5), (0, 2.0)])
def test_a_process_stopped_before_the_other_has_connected_leaves_none_waiting(
    tmp_path, rank, delay
):
    """torch waits for a peer in C++, which a launcher ends only after 30 seconds."""
    trial = Runs(tmp_path).stop("run", "sft", rank, delay)
    assert trial.sound, trial.said
    assert trial.seconds < 25
