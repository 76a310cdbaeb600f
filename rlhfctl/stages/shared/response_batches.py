"""Responses saved batch by batch, so that an interrupted evaluation samples none of them again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ResponseBatch:
    """Responses to consecutive prompts, with what was measured on each.

    Attributes:
        texts: [batch] responses, without special tokens.
        measurements: Name -> [batch] values.
    """

    texts: list[str]
    measurements: dict[str, list[float]]


class ResponseBatches:
    """A file of batches, one a line. A last line that was cut short is left out.

    It is valid for the prompts, models and batch size that it was made with; the pipeline discards
    a partial folder when any of them has changed.
    """

    def __init__(self, path: Path) -> None:
        """Read the batches that an interrupted evaluation has saved."""
        self.path = path
        self.batches: list[ResponseBatch] = []
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines):
            try:
                self.batches.append(ResponseBatch(**parse_json(line)))
            except (ValueError, TypeError):
                write_atomic(path, "".join(f"{whole}\n" for whole in lines[:number]))
                break

    def get(self, index: int) -> ResponseBatch | None:
        """Return a batch by its place in the evaluation, or None if it hasn't been saved."""
        return self.batches[index] if index < len(self.batches) else None

    def append(self, batch: ResponseBatch) -> None:
        """Save the next batch.

        Raises:
            OSError: The disk is full.
        """
        self.batches.append(batch)
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(batch)) + "\n")
