"""Right-padded batches of prompts and responses, with masks derived from lengths.

With right padding the causal mask suffices: no real token attends to padding, so no result depends
on it, and positions equal those without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rlhfctl.maths.masking import length_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Batch of prompts with their responses.

    Attributes:
        ids: [B, T], prompt, response, padding.
        prompt_lengths: [B].
        response_lengths: [B], each at least 1.
    """

    ids: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor

    @classmethod
    def from_lists(
        cls,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        pad_token_id: int,
        device: torch.device | str = "cpu",
    ) -> Sequences:
        """Build a batch from token lists, with one prompt and one response per row."""
        rows = [[*p, *r] for p, r in zip(prompts, responses, strict=True)]
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows])
        return cls(
            ids.to(device),
            torch.tensor([len(p) for p in prompts], device=device),
            torch.tensor([len(r) for r in responses], device=device),
        )

    def __len__(self) -> int:
        return int(self.ids.shape[0])

    @property
    def response_width(self) -> int:
        """R, the length of the longest response."""
        return int(self.response_lengths.max())

    @property
    def mask(self) -> Tensor:
        """[B, R], True on response tokens."""
        return length_mask(self.response_lengths, self.response_width)

    @property
    def response_positions(self) -> Tensor:
        """[B, R], position of each response token in its row; masked slots repeat the last."""
        offsets = torch.arange(self.response_width, device=self.ids.device)[None, :]
        last = self.prompt_lengths + self.response_lengths - 1
        return torch.minimum(self.prompt_lengths[:, None] + offsets, last[:, None])

    @property
    def responses(self) -> Tensor:
        """[B, R], token ids of the responses; masked slots repeat the last token."""
        return self.ids.gather(1, self.response_positions)

    def response_lists(self) -> list[list[int]]:
        """Return the token ids of each response, without padding."""
        rows = zip(
            self.ids.tolist(),
            self.prompt_lengths.tolist(),
            self.response_lengths.tolist(),
            strict=True,
        )
        return [ids[start : start + length] for ids, start, length in rows]

    @property
    def last_positions(self) -> Tensor:
        """[B], position of the last response token, where the score is read."""
        return self.prompt_lengths + self.response_lengths - 1

    def select(self, rows: Tensor) -> Sequences:
        """Return the episodes of `rows` [n], trimmed to the longest of them."""
        prompt_lengths, response_lengths = self.prompt_lengths[rows], self.response_lengths[rows]
        width = int((prompt_lengths + response_lengths).max())
        return Sequences(self.ids[rows, :width], prompt_lengths, response_lengths)

    def in_chunks(self, size: int) -> Iterator[tuple[Tensor, Sequences]]:
        """Yield row indices [n] and their episodes in chunks of `size`, sorted by length.

        Sorting reduces padding; no result depends on it.
        """
        order = torch.argsort(self.last_positions, stable=True)
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            yield rows, self.select(rows)
