"""The batch at which PPO diverged, written for study."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DivergedError
from rlhfctl.run.directory import DIVERGED_FILE
from rlhfctl.run.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rlhfctl.data.formatter import Formatter
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.ppo.trainer import PPOTrainer

_PER_EPISODE = ("model_scores", "scores", "kl", "ended")
_PER_TOKEN = (
    "log_probs",
    "reference_log_probs",
    "values",
    "rewards",
    "advantages",
    "returns",
)


@contextmanager
def diverged_batch_saved(trainer: PPOTrainer, formatter: Formatter, output: Path) -> Iterator[None]:
    """Write `output/DIVERGED_FILE` if training diverges within the context.

    It has a line per episode of the last complete rollout, then one per prompt of the rollout in
    hand, with its response unless sampling failed. NaN and infinite numbers are text there, such as
    "nan", which JSON cannot represent as numbers.

    Args:
        trainer: Trainer that runs.
        formatter: Decodes token ids.
        output: Folder of the stage.
    """
    try:
        yield
    except DivergedError:
        if trainer.processes.is_main:
            rows = _rollout_rows(trainer, formatter) + _current_rows(trainer, formatter)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomic(output / DIVERGED_FILE, text)
        raise


def _rollout_rows(trainer: PPOTrainer, formatter: Formatter) -> list[dict[str, object]]:
    """Return each episode of the last rollout with all of its numbers."""
    rollout = trainer.rollout
    if rollout is None:
        return []
    texts = _texts(rollout.sequences, list(rollout.rows), formatter)
    return [text | _numbers(rollout, index) for index, text in enumerate(texts)]


def _numbers(rollout: Rollout, index: int) -> dict[str, object]:
    numbers = {name: _plain(getattr(rollout, name)[index]) for name in _PER_EPISODE}
    tensors = {name: getattr(rollout, name) for name in _PER_TOKEN}
    mask = rollout.mask[index]
    return numbers | {name: _plain(t[index][mask]) for name, t in tensors.items() if t is not None}


def _current_rows(trainer: PPOTrainer, formatter: Formatter) -> list[dict[str, object]]:
    """Return the prompts of the unfinished rollout, unless it is the last complete one."""
    rollout, rows = trainer.rollout, list(trainer.processes.share(trainer.rows))
    if rollout is not None and rollout.rows is trainer.rows:
        return []
    if trainer.sequences is not None:
        return _texts(trainer.sequences, rows, formatter)
    prompts = [list(trainer.sampler.prompts[row]) for row in rows]
    return [
        {"prompt_index": row, "prompt": formatter.decode(ids), "prompt_ids": ids}
        for row, ids in zip(rows, prompts, strict=True)
    ]


def _texts(batch: Sequences, rows: list[int], formatter: Formatter) -> list[dict[str, object]]:
    texts: list[dict[str, object]] = []
    for index, response in enumerate(batch.response_lists()):
        prompt = batch.ids[index, : int(batch.prompt_lengths[index])].tolist()
        texts.append(
            {
                "prompt_index": rows[index],
                "prompt": formatter.decode(prompt),
                "response": formatter.decode(response),
                "prompt_ids": prompt,
                "response_ids": response,
            }
        )
    return texts


def _plain(values: Any) -> Any:
    """Return a tensor as JSON values, with text in place of NaN and infinite numbers."""
    listed = values.tolist()
    if isinstance(listed, list):
        return [item if math.isfinite(item) else str(item) for item in listed]
    return listed if math.isfinite(listed) else str(listed)
