"""Near-duplicates in a recipe's data: within training, and between training and held-out prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.data.near_duplicates import pairs_between, pairs_within
from rlhfctl.data.rows import content
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts
from rlhfctl.data.split import prompt_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

    from rlhfctl.data.near_duplicates import Near
    from rlhfctl.data.progress import Progress
    from rlhfctl.recipe.schema import Recipe


@dataclass(frozen=True)
class DuplicateCounts:
    """Near-duplicates in one set of prompts, or between two.

    Attributes:
        where: ``demonstrations``, or ``evaluation prompts in demonstrations``.
        prompts: Distinct prompts that were compared; of the evaluation where there are two sets.
        affected: Those with a near-duplicate.
        nearest: The most similar pairs.
    """

    where: str
    prompts: int
    affected: int
    nearest: list[Near]


def find_duplicates(
    recipe: Recipe, threshold: float, count: int, progress: Progress
) -> Iterator[DuplicateCounts]:
    """Compare the training prompts of each kind of data, and the held-out prompts with them.

    Prompts that differ in case and white space only are one: the split holds them on one side.

    Args:
        recipe: The recipe.
        threshold: Least similarity of a pair.
        count: Pairs to return per comparison.
        progress: Receives the progress of large sources.

    Raises:
        DataError: A source cannot be used.
        EnvironmentFault: A Hub data set cannot be loaded.
    """
    prompts = load_prompts(recipe, progress)
    training = {
        "demonstrations": _texts(load_demonstrations(recipe, progress).train),
        "comparisons": _texts(load_comparisons(recipe, progress).train),
        "prompts": _texts(prompts.train),
    }
    held_out = _texts(prompts.held_out)
    for kind, texts in training.items():
        pairs = pairs_within(texts, threshold)
        affected = {text for pair in pairs for text in (pair.first, pair.second)}
        yield DuplicateCounts(kind, len(texts), len(affected), pairs[:count])
    for kind, texts in training.items():
        pairs = pairs_between(texts, held_out, threshold)
        affected = {pair.second for pair in pairs}
        where = f"held-out prompts in {kind}"
        yield DuplicateCounts(where, len(held_out), len(affected), pairs[:count])


def _texts(rows: Dataset) -> list[str]:
    """Return the distinct prompts of rows; of plain text without a prompt, the text."""
    texts: dict[str, str] = {}
    for batch in rows.iter(batch_size=1000):
        for number, prompt in enumerate(batch["prompt"]):
            text = content(prompt)
            if not text.strip() and "completion" in batch:
                text = content(batch["completion"][number])
            texts.setdefault(prompt_key(text), text)
    return list(texts.values())
