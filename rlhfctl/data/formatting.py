"""Conversion of rows to token ids for the trainers, with the counts of rows that are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.data.assistant_turns import earlier_answers
from rlhfctl.data.formatter import Formatter as Formatter  # noqa: PLC0414, TC001
from rlhfctl.data.rendering import RenderingError
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import is_conversation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

COMPARISON_EXTRAS = ("margin", "annotator", "source", "target", "weight")
"""Optional columns of comparisons; `target` and `weight` are aggregated from several labels."""
_BATCH = 256
_TOO_LONG_HINTS = {
    "demonstrations": "raise sft.max_length, or shorten the rows",
    "comparisons": "raise reward_model.max_length, or shorten the rows",
    "prompts": "raise generation.max_prompt_length, or shorten the prompts",
}


@dataclass(frozen=True)
class _Row:
    """One encoded row.

    Attributes:
        length: Tokens of its longest sequence.
        columns: Its columns.
        notes: Clauses about it that people should read.
        spelled: A control token that its text spells.
    """

    length: int
    columns: dict[str, Any]
    notes: tuple[str, ...]
    spelled: str | None


_Encoder = Callable[[dict[str, list[Any]]], "Iterator[_Row | RenderingError]"]


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows and the counts of dropped rows.

    Attributes:
        dataset: Token ids of each usable row.
        report: Rows read, usable and dropped, by cause.
        longest: Length of the longest row before dropping, in tokens.
    """

    dataset: Dataset
    report: RowCounts
    longest: int


def encode_demonstrations(
    rows: Dataset,
    formatter: Formatter,
    max_length: int,
    bad_limit: float = 1.0,
    assistant_turns: str = "last",
) -> Encoded:
    """Encode demonstrations for TRL's SFTTrainer.

    Args:
        rows: Demonstrations.
        formatter: Formatter of the demonstrations.
        max_length: Longest row in tokens; longer ones are dropped.
        bad_limit: Largest share of unusable rows; only 0 is checked here, others over all parts.
        assistant_turns: ``last``, or ``all`` for a loss on earlier answers too.

    Returns:
        Columns ``input_ids`` (prompt, response and end token) and ``completion_mask`` (1 on the
        response and end token, 0 on the prompt, except earlier answers if they count).

    Raises:
        DataError: Rows are too long and `bad_limit` is 0, or no row is left.
        RecipeError: There is no chat template for conversations.
    """

    def encoded(batch: dict[str, list[Any]]) -> Iterator[_Row | RenderingError]:
        rows = list(zip(batch["prompt"], batch["completion"], strict=True))
        for row, pair in zip(rows, formatter.each_pair(rows), strict=True):
            if isinstance(pair, RenderingError):
                yield pair
                continue
            before = [0] * len(pair.prompt)
            if assistant_turns == "all" and is_conversation(row[0]):
                try:
                    before = earlier_answers(formatter, row[0], pair.prompt)
                except RenderingError as error:
                    yield error
                    continue
            mask = before + [1] * len(pair.response)
            columns = {"input_ids": pair.prompt + pair.response, "completion_mask": mask}
            yield _Row(len(mask), columns, pair.notes, formatter.spelled(*row))

    return _encode(rows, formatter, encoded, (max_length, bad_limit), "demonstrations")


def encode_comparisons(
    rows: Dataset, formatter: Formatter, max_length: int, bad_limit: float = 1.0
) -> Encoded:
    """Encode comparisons for TRL's RewardTrainer.

    Returns:
        Columns ``chosen_ids`` and ``rejected_ids`` (prompt, response and end token), and the
        columns of `COMPARISON_EXTRAS` present. Both sides must fit in `max_length` tokens.

    Raises:
        DataError: Rows are too long and `bad_limit` is 0, or no row is left.
        RecipeError: There is no chat template for conversations.
    """
    extras = [name for name in COMPARISON_EXTRAS if name in rows.column_names]

    def encoded(batch: dict[str, list[Any]]) -> Iterator[_Row | RenderingError]:
        rows = list(zip(batch["prompt"], batch["chosen"], batch["rejected"], strict=True))
        chosen = formatter.each_pair([(prompt, side) for prompt, side, _ in rows])
        rejected = formatter.each_pair([(prompt, side) for prompt, _, side in rows])
        others = zip(*(batch[name] for name in extras), strict=True)
        for row, one, two in zip(rows, chosen, rejected, strict=True):
            extra = dict(zip(extras, next(others, ()), strict=True))
            if isinstance(one, RenderingError):
                yield one
                continue
            if isinstance(two, RenderingError):
                yield two
                continue
            sides = {"chosen_ids": one.prompt + one.response}
            sides["rejected_ids"] = two.prompt + two.response
            length = max(map(len, sides.values()))
            notes = tuple(dict.fromkeys(one.notes + two.notes))
            yield _Row(length, sides | extra, notes, formatter.spelled(*row))

    return _encode(rows, formatter, encoded, (max_length, bad_limit), "comparisons")


def encode_prompts(
    rows: Dataset, formatter: Formatter, max_length: int, bad_limit: float = 1.0
) -> Encoded:
    """Encode prompts for sampling.

    Returns:
        Columns ``input_ids`` and the unchanged columns of the rows, such as ``prompt``. Prompts
        over `max_length` tokens are dropped.

    Raises:
        DataError: Prompts are too long and `bad_limit` is 0, or no prompt is left.
        RecipeError: There is no chat template for conversations.
    """

    def encoded(batch: dict[str, list[Any]]) -> Iterator[_Row | RenderingError]:
        rows = zip(*batch.values(), strict=True)
        for prompt, ids, values in zip(
            batch["prompt"], formatter.each_prompt(batch["prompt"]), rows, strict=True
        ):
            if isinstance(ids, RenderingError):
                yield ids
                continue
            columns = {"input_ids": ids, **dict(zip(batch, values, strict=True))}
            yield _Row(len(ids), columns, (), formatter.spelled(prompt))

    return _encode(rows, formatter, encoded, (max_length, bad_limit), "prompts")


def _encode(
    rows: Dataset, formatter: Formatter, encoded: _Encoder, limits: tuple[int, float], name: str
) -> Encoded:
    """Encode rows in batches, and count those that are too long or cannot be rendered.

    Args:
        rows: Rows of a data set.
        formatter: Formatter of `encoded`.
        encoded: Encodes a batch of rows.
        limits: Longest row in tokens, and the largest share of unusable rows.
        name: ``demonstrations``, ``comparisons`` or ``prompts``.
    """
    from datasets import Dataset, concatenate_datasets

    max_length, bad_limit = limits
    report = RowCounts(name, read=len(rows))
    parts: list[Dataset] = []
    too_long = longest = spelling = 0
    hint, example = "", ""
    noted: Counter[str] = Counter()
    for start in range(0, len(rows), _BATCH):
        fitting = []
        for row in encoded(rows[start : start + _BATCH]):
            if isinstance(row, RenderingError):
                report.drop(row.cause)
                hint = hint or row.hint
                continue
            longest = max(longest, row.length)
            if row.length > max_length:
                too_long += 1
                continue
            fitting.append(row.columns)
            spelling += row.spelled is not None
            example = example or row.spelled or ""
            noted.update(row.notes)
        if fitting:
            report.usable += len(fitting)
            parts.append(Dataset.from_list(fitting))
    if too_long:
        report.dropped[f"longer than {max_length:,} tokens (longest {longest:,})"] = too_long
        hint = hint or _TOO_LONG_HINTS[name]
    if spelling and not formatter.parse_special:
        noted[_spelling(name, example)] = spelling
    report.notes = tuple(
        f"{count:,} of {report.read:,} rows {clause}" for clause, count in noted.items()
    )
    # Training and held-out rows are encoded apart: their share counts together.
    report.check(0.0 if bad_limit == 0.0 else 1.0, hint or _TOO_LONG_HINTS[name])
    return Encoded(concatenate_datasets(parts), report, longest)


def _spelling(name: str, example: str) -> str:
    return (
        f"spell a control token, such as {example!r}; it is encoded as text. If they were rendered "
        f"beforehand, set data.{name}.special_tokens: parse"
    )
