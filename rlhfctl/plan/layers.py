"""The peak of a step of many layers, from steps of three and of four.

Where all decoder layers are alike, the bytes that are alive at a place of a step (such as "in the
backward pass of the second layer") are a linear function of the number of layers: every further
layer adds its weights, its saved activations and its gradients, and no more. Between the second and
the last but one layer the bytes change by the same amount from layer to layer, so that the largest
value is at one of those ends. Two steps therefore tell the peak of any number of layers exactly,
which tests compare with a step of all layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlhfctl.plan.live_bytes import Label, Split

_FEW = 3
"""Layers of the smaller step: with fewer, first and last layers would not be apart."""
_ENDS = 2
_Place = tuple[str, str, int]


def peak_of(step: Callable[[int], Mapping[Label, Split]], layers: int, *, alike: bool) -> Split:
    """Return the split at the peak of a step with a number of layers.

    Args:
        step: Runs a step with a number of layers and returns its peak per place.
        layers: Number of layers of the model.
        alike: Whether the layers are alike; if not, the whole step is run.
    """
    if not alike or layers <= _FEW + 1:
        return max(step(layers).values(), key=lambda split: split.total)
    small, large = _by_place(step(_FEW), _FEW), _by_place(step(_FEW + 1), _FEW + 1)
    further = layers - _FEW
    splits = [
        split.plus(large[place], further).plus(split, -further)
        for place, split in small.items()
        if place in large
    ]
    return max(splits, key=lambda split: split.total)


def _by_place(peaks: Mapping[Label, Split], layers: int) -> dict[_Place, Split]:
    """Return peaks by place, counted from both ends of the layers."""
    places: dict[_Place, Split] = {}
    for (name, layer), split in peaks.items():
        if layer < 0:
            places[name, "", 0] = split
        if 0 <= layer < _ENDS:
            places[name, "from the first", layer] = split
        if layer >= layers - _ENDS:
            places[name, "from the last", layers - 1 - layer] = split
    return places
