"""Collective operations over the processes of a training run; no-ops for a single process.

Every process holds all weights and samples its share of the episodes. The whole rollout is then
gathered on all of them, so whitening, metrics and decisions do not depend on their number.
Gradients are summed explicitly: DDP does not support roles that are adapters on one shared base.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rlhfctl.run.process_group import join_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Item = TypeVar("Item")
_POLL = 0.02  # seconds


class Processes:
    """Processes started by accelerate or torchrun, or the only process.

    Attributes:
        rank: Index of this process.
        count: Number of processes.
    """

    def __init__(self) -> None:
        """Join the process group, if there is one."""
        self._state = join_processes()
        self.rank = int(self._state.process_index)
        self.count = int(self._state.num_processes)

    @property
    def is_main(self) -> bool:
        """True if this is process 0, which writes files and logs."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's contiguous share of items, whose number `count` divides."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def gather_items(self, items: Sequence[Any]) -> list[Any]:
        """Return the items of all processes, in order of rank."""
        if self.count == 1:
            return list(items)
        from accelerate.utils import gather_object

        gathered: list[Any] = gather_object(list(items))
        return gathered

    def gather(self, values: Tensor) -> Tensor:
        """Return [count * b, ...] from [b, ...] per process, in order of rank."""
        if self.count == 1:
            return values
        from accelerate.utils import gather

        gathered: Tensor = gather(values.contiguous())
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes of tensors of equal shape."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        total: Tensor = reduce(values, "sum")
        return total

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over processes."""
        if self.count == 1:
            return list(values)
        largest = torch.tensor(values, dtype=torch.float64, device=self._state.device)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        maxima: list[float] = largest.tolist()
        return maxima

    def sum_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Replace the gradients in every process by their sum over processes."""
        if self.count == 1:
            return
        grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
        flat = self.sum(torch.cat([grad.reshape(-1) for grad in grads]))
        for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)

    def wait(self) -> None:
        """Wait until all processes have called this. Signals are handled meanwhile.

        A process that waits within a collective handles none, and another may work alone for long.
        """
        if self.count == 1:
            return
        devices = [self._state.local_process_index] if torch.cuda.is_available() else None
        barrier = torch.distributed.barrier(device_ids=devices, async_op=True)
        while not barrier.is_completed():
            time.sleep(_POLL)
        barrier.wait()
