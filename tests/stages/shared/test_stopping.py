"""Checkpoints by time in training by transformers' trainers."""

import pytest
from transformers import TrainerControl, TrainerState

from rlhfctl.ppo.processes import Processes
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared.stopping import StopCallback


@pytest.mark.parametrize(("minutes", "saved"), [(10.0, True), (None, False)])
def test_the_last_step_is_saved_unless_saving_by_time_is_off(minutes, saved):
    callback, control = StopCallback(Processes(), minutes, NullMonitor()), TrainerControl()
    callback.on_step_end(None, TrainerState(global_step=3, max_steps=4), control)
    assert not control.should_save
    callback.on_step_end(None, TrainerState(global_step=4, max_steps=4), control)
    assert control.should_save is saved
