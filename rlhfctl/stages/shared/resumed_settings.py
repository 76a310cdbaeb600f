"""Optimizer settings of a resumed training by transformers' trainers: the recipe's, if changed."""

from __future__ import annotations

from typing import Any

from transformers import Trainer


class ResumedSettings(Trainer):  # type: ignore[misc]
    """Applies the recipe's settings after a checkpoint is loaded.

    transformers restores learning rate, weight decay, betas, and the steps between logs and saves,
    as they were when the checkpoint was saved, so changes would be ignored. Moments and the number
    of steps are restored as they are. Equal settings change nothing, to the last bit.
    """

    def _init_training_state(self, max_steps: int, *rest: Any) -> Any:
        start = super()._init_training_state(max_steps, *rest)
        self.state.compute_steps(self.args, max_steps)
        return start

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        ours = [
            {key: value for key, value in group.items() if key not in {"params", "lr"}}
            for group in self.optimizer.param_groups
        ]
        super()._load_optimizer_and_scheduler(checkpoint)
        loaded = self.optimizer.param_groups  # new ones: loading replaces them
        same = (
            group.get(key) == value
            for group, settings in zip(loaded, ours, strict=True)
            for key, value in settings.items()
        )
        if all(same):
            return
        scheduler = self.lr_scheduler
        scheduler.base_lrs = [settings["initial_lr"] for settings in ours]
        factors = [function(scheduler.last_epoch) for function in scheduler.lr_lambdas]
        rates = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
        for group, settings, rate in zip(loaded, ours, rates, strict=True):
            group.update(settings, lr=rate)
        scheduler._last_lr = rates
