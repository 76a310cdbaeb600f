"""Reward models from elsewhere as reward sources, and the scale of their scores."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import load_prompts
from rlhfctl.errors import CheckpointError, DivergedError
from rlhfctl.json_text import parse_json
from rlhfctl.models.foreign_files import short_name
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.run.directory import REWARD_SCALES_FILE
from rlhfctl.run.files import write_json
from rlhfctl.stages.shared.calibration import SAME_SCORE, responses_needed, responses_used

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.data.formatting import Formatter
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.models.foreign_scorer import ForeignScorer
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.processes import Processes
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.prompt_rows import PromptRows
    from rlhfctl.stages.shared.stage_context import StageContext

Item = TypeVar("Item")


class ForeignSource:
    """Reward source: a reward model with a base, tokenizer and template of its own."""

    def __init__(
        self,
        name: str,
        scorer: ForeignScorer,
        formatter: Formatter,
        rows: PromptRows,
        normalization: ScoreNormalization | None = None,
    ) -> None:
        """Store the model.

        Args:
            name: Name in metrics.
            scorer: The model.
            formatter: Decodes responses to text, without special tokens.
            rows: Prompts that the rows of a batch are indices of.
            normalization: Scale of the scores; None: raw scores.
        """
        self.name = name
        self.scorer = scorer
        self.formatter = formatter
        self.rows = rows
        self.normalization = normalization

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return scores, [B], normalised where there is a normalization.

        Raises:
            CheckpointError: A score is not finite.
            DataError: The chat template refuses a conversation.
        """
        texts = [self.formatter.decode(ids) for ids in batch.response_lists()]
        scores = self.scorer.scores([self.rows.prompts[row] for row in rows], texts)
        return scores if self.normalization is None else self.normalization.apply(scores)


def report_truncation(
    scorers: Mapping[str, ForeignScorer], processes: Processes | None, monitor: Monitor
) -> None:
    """Warn of each reward model whose inputs were too long, with their number.

    Args:
        scorers: Source -> model; the same in all processes.
        processes: Processes that share the inputs; None: this one has all of them.
        monitor: Receives the warnings.
    """
    for source, scorer in scorers.items():
        counts = [(scorer.inputs.truncated, scorer.inputs.encoded)]
        if processes is not None:
            counts = processes.gather_items(counts)
        truncated, encoded = (sum(part) for part in zip(*counts, strict=True))
        if truncated:
            monitor.warn(
                f"{short_name(source)}: {truncated:,} of {encoded:,} inputs were longer than "
                f"{scorer.inputs.max_length:,} tokens and were scored without the beginning of "
                "their prompt"
            )


def measure_scales(
    context: StageContext,
    roles: Roles,
    scorers: Mapping[str, ForeignScorer],
    batch_size: int,
    monitor: Monitor,
    processes: Processes | None = None,
) -> dict[str, ScoreNormalization]:
    """Return mean and deviation of raw scores over one set of SFT responses, by source.

    The responses are to training prompts, with the recipe's seed, and chosen as for the run's own
    reward model: see `calibration`.

    Args:
        context: Tokenizer and recipe.
        roles: The reference responds.
        scorers: Source -> model.
        batch_size: Prompts per batch of sampling.
        monitor: Receives a warning if too few responses ended.
        processes: Processes that share the work and return the same; None: this one does all.

    Raises:
        DivergedError: A model gives all responses the same score.
    """
    if not scorers:
        return {}
    samples = _sft_samples(context, roles, batch_size, monitor, processes)
    scales: dict[str, ScoreNormalization] = {}
    for source, scorer in scorers.items():
        own = _share(samples, processes)
        values = scorer.scores([prompt for prompt, _ in own], [text for _, text in own]).tolist()
        scores = torch.tensor(_gathered(values, len(samples), processes), dtype=torch.float64)
        deviation = float(scores.std(correction=0))
        if not deviation >= SAME_SCORE:
            raise DivergedError(
                f"the reward model {source} gives all SFT responses the same score "
                f"(deviation {deviation:.2g})",
                "ppo.reward_sources",
                "Check its template and its prompts, or set normalization: none.",
            )
        scales[source] = ScoreNormalization(float(scores.mean()), deviation, len(scores))
    return scales


def _sft_samples(
    context: StageContext,
    roles: Roles,
    batch_size: int,
    monitor: Monitor,
    processes: Processes | None,
) -> list[tuple[Any, str]]:
    """Return prompts, as in the data, with SFT's responses as text."""
    recipe = context.recipe
    encoded = encode_prompts(
        load_prompts(recipe, monitor).train,
        context.formatter_for("prompts"),
        recipe.generation.max_prompt_length,
        progress=monitor,
    ).dataset
    prompts, ids = encoded["prompt"], encoded["input_ids"]
    samples: list[tuple[int, str, bool]] = []
    requested = recipe.reward_model.calibration_samples
    while needed := responses_needed([ended for _, _, ended in samples], requested):
        numbers = range(len(samples), len(samples) + needed)
        part = _share(numbers, processes)
        own: list[tuple[int, str, bool]] = []
        for start in range(0, len(part), batch_size):
            batch = part[start : start + batch_size]
            responses = roles.generate(
                [ids[number % len(encoded)] for number in batch],
                [(recipe.seed, number) for number in batch],
                "reference",
            )
            own += [
                (number, context.formatter.decode(response), roles.ended(response))
                for number, response in zip(batch, responses, strict=True)
            ]
        samples += _gathered(own, needed, processes)
    used, warning = responses_used([ended for _, _, ended in samples], recipe)
    if warning is not None:
        monitor.warn(warning)
    return [
        (prompts[number % len(encoded)], text)
        for (number, text, _), use in zip(samples, used.tolist(), strict=True)
        if use
    ]


def _share(items: Sequence[Item], processes: Processes | None) -> Sequence[Item]:
    """Return this process's part; items repeat at the end so that all parts have one size."""
    if processes is None:
        return items
    size = -(-len(items) // processes.count) * processes.count
    return processes.share([items[place % len(items)] for place in range(size)])


def _gathered(own: list[Item], count: int, processes: Processes | None) -> list[Item]:
    """Return the first `count` items of all processes' parts."""
    return (own if processes is None else processes.gather_items(own))[:count]


def save_scales(scales: Mapping[str, ScoreNormalization], folder: Path) -> None:
    """Write scales beside the policy, so that the evaluation scores as PPO did."""
    write_json(folder / REWARD_SCALES_FILE, {name: asdict(s) for name, s in scales.items()})


def read_scales(folder: Path) -> dict[str, ScoreNormalization]:
    """Return the scales that `save_scales` wrote; empty if it wrote none.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder / REWARD_SCALES_FILE
    if not path.is_file():
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return {name: ScoreNormalization(**scale) for name, scale in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"is damaged: {error}", str(path), "Run PPO again: rlhfctl ppo --force"
        ) from error
