"""SIGTERM to one of two processes ends the command in 143, and leaves no trace in the weights."""

import pytest

from tests.faults.stopped import trials


@pytest.mark.faults
@pytest.mark.parametrize("command", ["sft", "ppo"])
def test_one_of_two_processes_is_stopped(tmp_path, command):
    before = ["sft", "train-rm"] if command == "ppo" else []
    results = trials(tmp_path, 4, [command], seed=1, before=before)
    assert [trial for trial in results if not trial.sound] == []
