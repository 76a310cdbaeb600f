"""Peak memory of the stages: their largest passes, run on fake tensors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rlhfctl.plan.layers import peak_of
from rlhfctl.plan.live_bytes import LiveBytes, Split
from rlhfctl.plan.losses import (
    reward_loss,
    sft_loss,
    triton_tiles,
)
from rlhfctl.plan.optimizers import state_bytes, step_bytes
from rlhfctl.plan.passes import drop_gradients, hold_model, train
from rlhfctl.plan.shadow import Architecture, Shadow, make_shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rlhfctl.plan.live_bytes import Label
    from rlhfctl.plan.target import Target
    from rlhfctl.recipe.schema import Recipe


@dataclass(frozen=True)
class Planned:
    """A recipe on a device.

    Attributes:
        recipe: Recipe.
        architecture: Base model.
        target: Device.
        beside: Bytes of the device that another process holds, which `target` has less.
    """

    recipe: Recipe
    architecture: Architecture
    target: Target
    beside: int = 0

    @property
    def on_gpu(self) -> bool:
        """True if the device is a GPU."""
        return self.target.kind == "cuda"

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the longest prompt and of the longest response."""
        generation = self.recipe.generation
        return generation.max_prompt_length, generation.max_new_tokens

    def shadow(self, mode: FakeTensorMode, layers: int, **options: Any) -> Shadow:
        """Return the base model as a stage loads it; `options` are those of `make_shadow`."""
        return make_shadow(
            *(self.architecture, self.recipe.model, self.target, mode),
            layers=layers,
            lora=self.recipe.lora,
            **options,
        )

    def peak(self, step: Callable[[LiveBytes, FakeTensorMode, int], None]) -> Split:
        """Return the peak of a step that runs with a number of layers."""

        def run(layers: int) -> Mapping[Label, Split]:
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            with triton_tiles(on_gpu=self.on_gpu):
                live = LiveBytes()
                with mode, live:
                    step(live, mode, layers)
            return live.peaks

        return peak_of(run, self.architecture.layers, alike=self.architecture.alike)

    @contextmanager
    def trainer_autocast(self) -> Iterator[None]:
        """Compute as transformers' trainer does: in 16 bits by autocast, unless in fp32.

        `rlhfctl.models.device.trainer_precision` asks for it. The fake tensors are on the CPU, so
        its autocast takes the place of CUDA's.
        """
        dtype = self.target.dtype(self.recipe.model)
        enabled = dtype is torch.bfloat16 or (dtype is torch.float16 and self.on_gpu)
        with torch.autocast("cpu", dtype if enabled else torch.bfloat16, enabled=enabled):
            yield

    @contextmanager
    def ppo_autocast(self) -> Iterator[None]:
        """Compute as PPO's roles do: by autocast with whole weights in bfloat16 only."""
        enabled = (
            self.recipe.lora is None and self.target.dtype(self.recipe.model) is torch.bfloat16
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            yield


def sft_peak(planned: Planned) -> Split:
    """Return the peak of an SFT step with the longest rows, padded, and of its optimizer."""
    section = planned.recipe.sft

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        shadow = planned.shadow(mode, layers)
        _prepare(shadow, live, section.optim, checkpointing=section.gradient_checkpointing)

        def loss() -> torch.Tensor:
            with planned.trainer_autocast():
                return sft_loss(
                    *(shadow, live, section.per_device_train_batch_size, section.max_length),
                    on_gpu=planned.on_gpu,
                )

        train(shadow, live, loss, accumulates=section.gradient_accumulation_steps > 1)
        _step(shadow, live, section.optim, planned)

    return planned.peak(step)


def sft_evaluation_peak(planned: Planned) -> Split:
    """Return the peak of SFT's evaluation of held-out rows, beside the optimizer's state."""
    section = planned.recipe.sft

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        shadow = planned.shadow(mode, layers)
        _prepare(shadow, live, section.optim, checkpointing=False)
        shadow.model.eval()
        with torch.no_grad(), planned.trainer_autocast():
            sft_loss(
                *(shadow, live, section.per_device_eval_batch_size, section.max_length),
                on_gpu=planned.on_gpu,
            )

    return planned.peak(step)


def reward_peak(planned: Planned) -> Split:
    """Return the peak of a step of the reward model with the longest pairs."""
    section = planned.recipe.reward_model

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        shadow = planned.shadow(mode, layers, scorer=True)
        _prepare(shadow, live, section.optim, checkpointing=section.gradient_checkpointing)

        def loss() -> torch.Tensor:
            with planned.trainer_autocast():
                return reward_loss(
                    shadow, live, section.per_device_train_batch_size, section.max_length
                )

        train(shadow, live, loss, accumulates=section.gradient_accumulation_steps > 1)
        _step(shadow, live, section.optim, planned)

    return planned.peak(step)


def dpo_peak(planned: Planned) -> Split:
    """Return the peak of a DPO step with the longest pairs.

    The reference reads chosen and rejected rows while the policy's activations are held. With
    adapters it is a frozen one on the same base, else a model of its own.
    """
    section = planned.recipe.dpo
    rows, whole = 2 * section.per_device_train_batch_size, planned.recipe.lora is None

    def step(live: LiveBytes, mode: FakeTensorMode, layers: int) -> None:
        shadow = planned.shadow(mode, layers, roles=("default", "ref"))
        reference = planned.shadow(mode, layers) if whole else shadow
        for name, weight in reference.model.named_parameters():
            if whole or ".ref." in name:
                weight.requires_grad_(requires_grad=False)
        _prepare(shadow, live, section.optim, checkpointing=section.gradient_checkpointing)
        if whole:
            hold_model(reference, live)

        def loss() -> torch.Tensor:
            with planned.trainer_autocast():
                policy = sft_loss(shadow, live, rows, section.max_length, on_gpu=planned.on_gpu)
                live.enter("reference")
                with torch.no_grad():
                    frozen = sft_loss(
                        reference, live, rows, section.max_length, on_gpu=planned.on_gpu
                    )
            return policy - frozen

        train(shadow, live, loss, accumulates=section.gradient_accumulation_steps > 1)
        _step(shadow, live, section.optim, planned)

    return planned.peak(step)


def _prepare(shadow: Shadow, live: LiveBytes, optim: str, *, checkpointing: bool) -> None:
    """Count the model and the optimizer's state, and set up checkpointing as TRL does."""
    hold_model(shadow, live)
    live.add("optimizer", state_bytes(optim, shadow.trained()))
    shadow.model.train()
    if checkpointing:
        shadow.base.gradient_checkpointing_enable({"use_reentrant": False})
        if shadow.model is not shadow.base:
            shadow.model.enable_input_require_grads()


def _step(shadow: Shadow, live: LiveBytes, optim: str, planned: Planned) -> None:
    live.enter("step")
    size = step_bytes(optim, shadow.trained(), on_gpu=planned.on_gpu)
    live.add("optimizer", size)
    live.add("optimizer", -size)
    drop_gradients(shadow)
