"""Acting on alarms: beta is raised, an earlier policy restored, or training ended."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rlhfctl.ppo import checkpoint
from rlhfctl.ppo.alarm_acts import Act, next_act

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.ppo.checkpoint import Progress
    from rlhfctl.ppo.ppo_step import PPOStep
    from rlhfctl.ppo.settings import PPOSettings
    from rlhfctl.run.monitor import Monitor


class Response(NamedTuple):
    """State after an evaluation's alarms.

    Attributes:
        progress: Training state to go on from.
        act: What was done; None for nothing.
        save: True if the state must be saved, for a rollback to restore.
    """

    progress: Progress
    act: Act | None = None
    save: bool = False

    @property
    def restored(self) -> bool:
        """True if weights of an earlier policy were restored."""
        return self.act is not None and self.act.restored is not None

    @property
    def stop(self) -> bool:
        """True to end training."""
        return self.act is not None and self.act.kind == "stop"


class AlarmActor:
    """Decides and acts, the same in all processes; does nothing with `on_alarm: warn`."""

    def __init__(
        self,
        settings: PPOSettings,
        step: PPOStep,
        average: Sequence[Tensor],
        checkpoints: Path | None,
        monitor: Monitor,
    ) -> None:
        """Store what acts change.

        Args:
            settings: `on_alarm` and its numbers.
            step: Weights and optimisers.
            average: Running mean of the policy's weights; empty without one.
            checkpoints: Folder of checkpoints.
            monitor: Receives a line per act.

        Raises:
            ValueError: A rollback has no checkpoints to restore.
        """
        if settings.on_alarm == "rollback" and checkpoints is None:
            raise ValueError("on_alarm rollback needs a folder of checkpoints")
        self.settings = settings
        self.step = step
        self.average = average
        self.checkpoints = checkpoints
        self.monitor = monitor

    def respond(
        self, progress: Progress, alarms: Sequence[str], *, has_best: bool, last: bool
    ) -> Response:
        """Act on the alarms of an evaluation.

        Args:
            progress: State at the evaluation.
            alarms: Names of the alarms whose condition holds.
            has_best: True if the best policy is saved, so that a stop restores none.
            last: True at the end of training, where a higher beta would change nothing.

        Raises:
            CheckpointError: The checkpoint to go back to is missing or damaged.
        """
        settings = self.settings
        if settings.on_alarm == "warn":
            return Response(progress)
        state = progress.alarms.observed(alarms, settings.alarm_clear_evaluations)
        restores = settings.on_alarm == "rollback" or (settings.on_alarm == "stop" and not has_best)
        clean = restores and not alarms and self.checkpoints is not None
        if clean:
            state = replace(state, clean=progress.rollout)
        progress = replace(progress, alarms=state)
        kind = next_act(state, alarms, settings)
        if kind == "rollback" and state.clean is None:
            kind = "raise_beta"  # resumed with other settings: no evaluation was clean since
        if kind is None or (kind == "raise_beta" and last):
            return Response(progress, save=clean)
        goes_back = kind == "rollback" or (kind == "stop" and not has_best)
        act = Act(
            kind,
            state.due(alarms),
            progress.rollout,
            progress.rollout * settings.rollout_batch_size,
            progress.beta,
            progress.beta * (1.0 if kind == "stop" else settings.alarm_beta_factor),
            state.clean if goes_back else None,
        )
        return Response(self._apply(act, progress), act)

    def _apply(self, act: Act, progress: Progress) -> Progress:
        """Change weights and state as an act says, and report it."""
        if act.restored is not None and self.checkpoints is not None:
            saved = checkpoint.load(self.checkpoints, act.restored, self.step, self.average)
            # Rollouts are counted on, so that the run's length, schedule and log stay as they are.
            progress = replace(
                progress, moments=saved.moments, place=saved.place, ptx_place=saved.ptx_place
            )
        state = progress.alarms
        waiting = {} if act.kind == "rollback" else {**state.acted, **dict.fromkeys(act.alarms, 0)}
        self.monitor.warn(act.sentence(self.settings.rollout_batch_size))
        return replace(
            progress,
            beta=act.beta,
            alarms=replace(state, acted=waiting, acts=(*state.acts, act)),
        )
