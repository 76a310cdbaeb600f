"""The longest response that fits with policy, reference, reward model and critic."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlhfctl.plan.advice import with_settings
from rlhfctl.plan.estimates import peak_of_stage
from rlhfctl.plan.server import beside_server
from rlhfctl.plan.target import GIB, Target
from rlhfctl.plan.verdict import roomy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.plan.stage_memory import Planned

SIZES = (16, 24, 80)
"""GPU memory in GB, as cards are sold; what they report is a little less."""
_REPORTED = 0.98
_STEP = 16
_TRIES = 6
_SHORT, _LONG = 128, 1024


def longest_responses(planned: Planned) -> dict[int, int]:
    """Return tokens of the longest response per GPU size in GB, by the recipe's other settings.

    0 where no response fits. A response that fits leaves a tenth of the usable memory free. The
    peak is nearly linear in the response's length, so secants find it in a few steps; the result
    is one whose own estimate fits, within 16 tokens of one that does not or of the model's
    positions.

    Args:
        planned: Recipe on a GPU, whose precision counts for every size.
    """
    peaks: dict[int, int] = {}
    return {size: _longest(planned, _sized(planned, size), peaks) for size in SIZES}


def _sized(planned: Planned, size: int) -> Target:
    memory = int(size * GIB * _REPORTED)
    target = replace(planned.target, name=f"{size} GB", kind="cuda", memory=memory)
    return beside_server(replace(planned, target=target)).target


def _longest(planned: Planned, target: Target, peaks: dict[int, int]) -> int:
    bound, room = _positions(planned), roomy(target)

    def fits(length: int) -> bool:
        if length not in peaks:
            changed = with_settings(planned.recipe, {"generation.max_new_tokens": length})
            peaks[length] = peak_of_stage(replace(planned, recipe=changed), "ppo").split.total
        return peaks[length] <= room

    low, high = 0, bound + _STEP
    guesses = [_SHORT, _LONG]
    for _ in range(_TRIES):
        for guess in guesses:
            length = min(bound, max(_STEP, guess // _STEP * _STEP))
            if low < length < high:
                low, high = (length, high) if fits(length) else (low, length)
        if high - low <= _STEP:
            break
        guesses = [_crossing(peaks, room, low, high), (low + high) // 2]
    return low


def _crossing(peaks: Mapping[int, int], room: int, low: int, high: int) -> int:
    """Return where the line through the two nearest lengths reaches the room."""
    ordered = sorted(peaks, key=lambda length: min(abs(length - low), abs(length - high)))
    if len(ordered) < 2:
        return (low + high) // 2
    first, second = sorted(ordered[:2])
    slope = (peaks[second] - peaks[first]) / (second - first)
    if slope <= 0:
        return (low + high) // 2
    return int(first + (room - peaks[first]) / slope)


def _positions(planned: Planned) -> int:
    """Return the longest response that the model has positions for."""
    text = planned.architecture.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    prompt = planned.recipe.generation.max_prompt_length
    return max(_STEP, (positions if isinstance(positions, int) else 2**17) - prompt)
