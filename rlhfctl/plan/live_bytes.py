"""Bytes of live tensors while code runs on fake ones, with their peak and what it consists of.

torch's fake tensors have shapes and dtypes and no contents, so real code runs on them, forward and
backward, without memory. The method is that of torch's `torch.distributed._tools.mem_tracker`: a
dispatch mode sees the result of every operation, counts its storage once, and a weak reference
tells when the storage is freed.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CATEGORIES = (
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "kv_cache",
)
"""Kinds of tensors that a peak is split into."""

Label = tuple[str, int]
"""Part of a step: a name and the number of a decoder layer, -1 outside the layers."""


_LOGIT_PLACES = ("head", "sampling")
"""Places of a step where new tensors are logits, and what the loss or the sampling makes of them."""


@dataclass(frozen=True)
class Split:
    """Bytes per kind of tensor.

    Attributes:
        bytes: Bytes by name of `CATEGORIES`; every name is there.
    """

    bytes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in CATEGORIES:
            self.bytes.setdefault(name, 0)

    @property
    def total(self) -> int:
        """Sum over the kinds."""
        return sum(self.bytes.values())

    def plus(self, other: Split, times: int = 1) -> Split:
        """Return this split plus `times` another, kind by kind."""
        return Split({name: self.bytes[name] + times * other.bytes[name] for name in CATEGORIES})


class LiveBytes(TorchDispatchMode):
    """Counts the storages that are alive; a peak per label of the step.

    Attributes:
        peaks: The split at the peak of each label.
        label: Label of what runs now.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now: defaultdict[str, int] = defaultdict(int)
        self._storages: dict[int, tuple[Any, int, str]] = {}
        self._category = "activations"
        self.peaks: dict[Label, Split] = {}
        self.label: Label = ("start", -1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages of its results."""
        result = func(*args, **(kwargs or {}))
        category = self._category
        if category == "activations" and self.label[0] in _LOGIT_PLACES:
            category = "logits"
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, category)
        self._note()
        return result

    @contextmanager
    def category(self, name: str) -> Iterator[None]:
        """Give new storages a kind; without it they are activations."""
        before, self._category = self._category, name
        try:
            yield
        finally:
            self._category = before

    def hold(self, tensor: Tensor, category: str) -> None:
        """Count a tensor that already exists, or change its kind."""
        storage = tensor.untyped_storage()
        counted = self._storages.get(storage._cdata)
        if counted is not None:
            reference, size, before = counted
            self._now[before] -= size
            self._now[category] += size
            self._storages[storage._cdata] = (reference, size, category)
        else:
            self._count(tensor, category)
        self._note()

    def add(self, category: str, size: int) -> None:
        """Add bytes that no tensor stands for."""
        self._now[category] += size
        self._note()

    def enter(self, name: str, layer: int = -1) -> None:
        """Begin the next part of the step."""
        self.label = (name, layer)
        self._note()

    def _count(self, tensor: Tensor, category: str) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = storage.nbytes()
        self._storages[key] = (weakref.ref(storage, partial(self._freed, key)), size, category)
        self._now[category] += size

    def _freed(self, key: int, _: Any) -> None:
        _, size, category = self._storages.pop(key)
        self._now[category] -= size

    def _note(self) -> None:
        total, peak = sum(self._now.values()), self.peaks.get(self.label)
        if peak is None or total > peak.total:
            self.peaks[self.label] = Split(dict(self._now))
