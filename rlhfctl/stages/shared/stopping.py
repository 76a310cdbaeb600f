"""Checkpoints by time and on request in training by transformers' trainers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from rlhfctl.ppo.safe_points import SafePoints, stop_together
from rlhfctl.run import stop

if TYPE_CHECKING:
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.run.monitor import Monitor


class StopCallback(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint when one is due or a stop is requested, and then stops.

    It must come after the callback that seals checkpoints. With `save_minutes` the state after the last
    step is saved too, so that the evaluation that follows can be interrupted.
    """

    def __init__(self, processes: Processes, minutes: float | None, monitor: Monitor) -> None:
        """Store the processes, `save_minutes` and the monitor."""
        self.processes = processes
        self.points = SafePoints(processes, minutes)
        self.monitor = monitor
        self.signal = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.points.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Request a checkpoint if one is due."""
        save, self.signal = self.points.reached()
        last = state.global_step >= state.max_steps
        if save or (last and self.points.seconds is not None) or self.signal:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restart the clock, or stop.

        Raises:
            Stopped: A stop was requested, and the checkpoint is complete.
        """
        self.points.saved()
        if self.signal:
            # Process 0 has sealed the checkpoint before any process ends.
            self.processes.wait()
            self.monitor.note(f"saved a checkpoint after step {state.global_step:,}")
            raise stop.begin(self.signal)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop between two batches of an evaluation.

        Raises:
            Stopped: A stop was requested.
        """
        try:
            stop_together(self.processes)
        except stop.Stopped as stopped:
            # Within training a checkpoint is saved before the process ends.
            self.signal = stopped.number
            raise
