"""Acts on the alarms of held-out evaluations: what is done, when, and what is remembered.

An alarm acts once, then not again until `alarm_clear_evaluations` evaluations in a row were without
it (hysteresis: a metric that wavers about its threshold would else act at every crossing). After a
rollback the policy is one without alarms, so every alarm may act again; `alarm_rollbacks` bounds
how often, and the next alarm then ends training as `stop` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.ppo.settings import PPOSettings

OnAlarm = Literal["warn", "raise_beta", "rollback", "stop"]


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes:
        kind: `raise_beta`, `rollback` or `stop`.
        alarms: Names of the alarms that it acted on.
        rollout: Rollouts done, discarded ones included.
        step: The same in episodes.
        beta_before: KL coefficient before the act.
        beta: KL coefficient after it.
        restored: Rollouts before the checkpoint that was restored; None without one.
    """

    kind: Literal["raise_beta", "rollback", "stop"]
    alarms: tuple[str, ...]
    rollout: int
    step: int
    beta_before: float
    beta: float
    restored: int | None = None

    def sentence(self, episodes_per_rollout: int) -> str:
        """Return what was done, for people."""
        plural = "s" if len(self.alarms) > 1 else ""
        cause = f"On alarm{plural} {', '.join(self.alarms)} at episode {self.step:,}"
        beta = f"beta {self.beta_before:.3g} -> {self.beta:.3g}"
        back = (
            ""
            if self.restored is None
            else f"policy and critic of episode {self.restored * episodes_per_rollout:,} restored"
        )
        match self.kind:
            case "raise_beta":
                return f"{cause}: {beta}"
            case "rollback":
                return f"{cause}: {back}, {beta}"
            case "stop":
                return f"{cause}: PPO stops" + (f", {back}" if back else "")


@dataclass(frozen=True)
class AlarmState:
    """Memory of the acts on alarms, saved in checkpoints.

    Attributes:
        acted: Alarm that has acted -> evaluations since that were without it, in a row.
        clean: Rollouts before the last evaluation without alarms; its checkpoint is not removed.
            None before the first, or where nothing is restored.
        acts: All acts so far.
    """

    acted: Mapping[str, int] = field(default_factory=dict)
    clean: int | None = None
    acts: tuple[Act, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the state from its JSON form."""
        acts = (Act(**(act | {"alarms": tuple(act["alarms"])})) for act in values["acts"])
        return cls(values["acted"], values["clean"], tuple(acts))

    @property
    def rollbacks(self) -> int:
        """Rollbacks so far."""
        return sum(act.kind == "rollback" for act in self.acts)

    def restored_after(self, rollout: int) -> int | None:
        """Return the rollouts of the policy at the end of `rollout`, if an act restored an older one."""
        last = self.acts[-1] if self.acts else None
        return last.restored if last is not None and last.rollout == rollout else None

    def observed(self, active: Sequence[str], clear_evaluations: int) -> Self:
        """Return the state after an evaluation whose alarms are `active`: clear ones may act again."""
        waiting = {name: 0 if name in active else count + 1 for name, count in self.acted.items()}
        return type(self)(
            {name: count for name, count in waiting.items() if count < clear_evaluations},
            self.clean,
            self.acts,
        )

    def due(self, active: Sequence[str]) -> tuple[str, ...]:
        """Return the active alarms that may act."""
        return tuple(name for name in active if name not in self.acted)


def next_act(
    state: AlarmState, active: Sequence[str], settings: PPOSettings
) -> Literal["raise_beta", "rollback", "stop"] | None:
    """Return what an evaluation's alarms ask for; None for nothing.

    Args:
        state: State after `observed`.
        active: Alarms of the evaluation.
        settings: `on_alarm` and `alarm_rollbacks`.
    """
    if settings.on_alarm == "warn" or not state.due(active):
        return None
    if settings.on_alarm == "rollback" and state.rollbacks >= settings.alarm_rollbacks:
        return "stop"
    return settings.on_alarm
