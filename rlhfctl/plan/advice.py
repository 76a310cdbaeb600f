"""Settings that would make a stage fit, each computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from rlhfctl.plan.estimates import VLLM_SAMPLING, peak_of_stage
from rlhfctl.plan.server import beside_server, server_of
from rlhfctl.plan.verdict import Verdict, verdict
from rlhfctl.stage_table import PPO, REWARD_MODEL, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.plan.stage_memory import Planned
    from rlhfctl.recipe.schema import Recipe


_Section = TypeVar("_Section", bound=BaseModel)

SAMPLING = "sampling"
"""Name of the peak of sampling, in a stage that samples whole rollouts."""
SAMPLING_KEY = "generation.batch_size"


@dataclass(frozen=True)
class Suggestion:
    """A change of the recipe.

    Attributes:
        settings: Recipe keys and their values.
        peak: Bytes at the stage's peak with them.
        verdict: Its verdict.
    """

    settings: Mapping[str, Any]
    peak: int
    verdict: Verdict


def suggestions(planned: Planned, stage: str, place: str) -> list[Suggestion]:
    """Return settings that make a stage fit; if none does alone, all of them together.

    The smaller batch comes with as many more accumulation steps (in PPO no key is needed), so that
    the update stays the same.

    Args:
        planned: Recipe on a device, of which the stage does not fit well.
        stage: sft, rm, ppo or eval.
        place: Where its peak is.
    """
    computed: list[Suggestion] = []
    combined: dict[str, Any] = {}
    for settings in (
        *_single(planned.recipe, stage),
        *_fewer_at_once(planned.recipe, stage, place),
        *_smaller_server(planned, stage, place),
    ):
        suggestion = _computed(planned, stage, settings)
        computed.append(suggestion)
        combined |= settings
    fitting = [suggestion for suggestion in computed if suggestion.verdict == "fits"]
    if fitting or len(computed) < 2:
        return fitting or computed
    return [*computed, _computed(planned, stage, combined)]


def _computed(planned: Planned, stage: str, settings: Mapping[str, Any]) -> Suggestion:
    changed = replace(planned, recipe=with_settings(planned.recipe, settings))
    if stage == PPO.name:
        changed = beside_server(changed)
    peak = peak_of_stage(changed, stage).split.total
    return Suggestion(settings, peak, verdict(peak, changed.target))


def _single(recipe: Recipe, stage: str) -> Iterator[dict[str, Any]]:
    """Yield changes that leave the update as it is, and quantization."""
    if stage == "eval":
        if recipe.evaluation.batch_size > 1:
            yield {"evaluation.batch_size": max(1, recipe.evaluation.batch_size // 4)}
    else:
        name = stage_named(stage).module
        section = getattr(recipe, name)
        yield from _smaller_batch(recipe, stage, name)
        if not section.gradient_checkpointing:
            yield {f"{name}.gradient_checkpointing": True}
    if recipe.lora is not None and recipe.model.quantization in {"none", "8bit"}:
        yield {"model.quantization": "4bit"}


def _fewer_at_once(recipe: Recipe, stage: str, place: str) -> Iterator[dict[str, Any]]:
    """Yield a quarter of the responses sampled at once, which fill the KV cache, and a 16th."""
    rows = recipe.sampled_at_once
    if stage in (REWARD_MODEL.name, PPO.name) and place == SAMPLING:
        for size in sorted({max(1, rows // 4), max(1, rows // 16)} - {rows}, reverse=True):
            yield {SAMPLING_KEY: size}


def _smaller_server(planned: Planned, stage: str, place: str) -> Iterator[dict[str, Any]]:
    """Yield a server that sleeps while PPO trains; if it does and is too large, half of it."""
    server = server_of(planned)
    if stage != PPO.name or server is None or not planned.on_gpu:
        return
    section = planned.recipe.ppo.vllm
    if section.mode == "server":
        yield {"ppo.vllm.mode": "colocate"}
    elif place == VLLM_SAMPLING and server.weights < server.memory / 2:
        yield {"ppo.vllm.gpu_memory_utilization": round(section.gpu_memory_utilization / 2, 3)}


def _smaller_batch(recipe: Recipe, stage: str, name: str) -> Iterator[dict[str, Any]]:
    """Yield a quarter of the rows per pass, and one row."""
    if stage == "ppo":
        rows = recipe.ppo.forward_batch_size
        for size in sorted({max(1, rows // 4), 1} - {rows}, reverse=True):
            yield {"ppo.forward_batch_size": size}
        return
    section = getattr(recipe, name)
    rows, steps = section.per_device_train_batch_size, section.gradient_accumulation_steps
    for size in sorted({max(1, rows // 4), 1} - {rows}, reverse=True):
        if rows % size == 0:
            yield {
                f"{name}.per_device_train_batch_size": size,
                f"{name}.gradient_accumulation_steps": steps * (rows // size),
            }


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values of some keys, such as `sft.max_length`."""
    for key, value in settings.items():
        recipe = _with_setting(recipe, key, value)
    return recipe


def _with_setting(section: _Section, key: str, value: object) -> _Section:
    name, _, rest = key.partition(".")
    if rest:
        value = _with_setting(getattr(section, name), rest, value)
    return section.model_copy(update={name: value})
