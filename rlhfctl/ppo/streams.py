"""The order in which rows come: fresh each pass, and known from seed and place alone."""

from __future__ import annotations

import torch


class RowStream:
    """Row numbers in a fresh order each pass, wrapping where more is asked than is left.

    The order is a function of seed and place, so that a resumed run goes on as it would have.

    Attributes:
        place: How many rows were taken.
    """

    def __init__(self, size: int, seed: int, place: int = 0) -> None:
        """Take the number of rows, at least 1."""
        self.size = size
        self.seed = seed
        self.place = place

    def _order(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(self.size, generator=generator)

    def take(self, count: int) -> list[int]:
        """Return the next `count` rows."""
        taken: list[int] = []
        while len(taken) < count:
            number, start = divmod(self.place, self.size)
            rows = self._order(number)[start : start + count - len(taken)].tolist()
            taken += rows
            self.place += len(rows)
        return taken
