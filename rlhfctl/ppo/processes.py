"""What the processes of one training run tell one another; one process alone hears itself.

Every process holds all weights. Each collects its share of the episodes; the rollout is then
gathered whole on all of them, so that whitening, metrics and decisions are those of one process.
Gradients are summed by hand, since roles are adapters on one base, which no wrapper knows of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rlhfctl.run.process_group import join_processes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Item = TypeVar("Item")


class Processes:
    """The processes that accelerate, torchrun or nobody has started.

    Attributes:
        rank: This one's number.
        count: How many there are.
    """

    def __init__(self) -> None:
        """Join the group, where there is one."""
        self._state = join_processes()
        self.rank = int(self._state.process_index)
        self.count = int(self._state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's run of items, whose number `count` divides."""
        size = len(items) // self.count
        return items[self.rank * size : (self.rank + 1) * size]

    def gather_items(self, items: Sequence[Any]) -> list[Any]:
        """Return every process's items, those of process 0 first."""
        if self.count == 1:
            return list(items)
        from accelerate.utils import gather_object

        gathered: list[Any] = gather_object(list(items))
        return gathered

    def gather(self, values: Tensor) -> Tensor:
        """Return [count * b, ...] from every process's [b, ...], those of process 0 first."""
        if self.count == 1:
            return values
        from accelerate.utils import gather

        gathered: Tensor = gather(values.contiguous())
        return gathered

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes of tensors of one shape."""
        if self.count == 1:
            return values
        from accelerate.utils import reduce

        total: Tensor = reduce(values, "sum")
        return total

    def sum_gradients(self, weights: Sequence[torch.nn.Parameter]) -> None:
        """Put the sum of all processes' gradients in every process's weights."""
        if self.count == 1:
            return
        grads = [w.grad if w.grad is not None else torch.zeros_like(w) for w in weights]
        flat = self.sum(torch.cat([grad.reshape(-1) for grad in grads]))
        for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.grad = part.view_as(weight)

    def wait(self) -> None:
        """Go on when all have come here."""
        self._state.wait_for_everyone()
