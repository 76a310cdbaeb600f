"""Rows as the stages read them: token ids with their loss masks, lengths and counts, for people."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.stage_table import STAGES, stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from datasets import Dataset

    from rlhfctl.data.cache import Cleaned
    from rlhfctl.data.contamination import DuplicateCounts as DuplicateCounts  # noqa: PLC0414
    from rlhfctl.data.encoders import Encoder
    from rlhfctl.data.formatter import Formatter
    from rlhfctl.data.formatting import Encoded
    from rlhfctl.data.forms import Kind
    from rlhfctl.data.progress import Progress
    from rlhfctl.data.row_counts import SourceCounts
    from rlhfctl.data.sources import Split
    from rlhfctl.recipe.schema import Recipe

TRAINING_STAGES = tuple(stage.name for stage in STAGES if not stage.main_process_only)
"""Stages whose data is shown."""
_KINDS: tuple[Kind, ...] = ("demonstrations", "comparisons", "prompts")
_EQUAL = "chosen equals rejected"
_TOO_LONG = "longer than "
_BINS = 10


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of one meaning.

    Attributes:
        text: Their text, special tokens included.
        tokens: Their number.
        trained: Whether the loss, or the score, is of these tokens.
    """

    text: str
    tokens: int
    trained: bool


@dataclass(frozen=True)
class ShownSequence:
    """One sequence of token ids.

    Attributes:
        name: ``row``, ``chosen``, ``rejected`` or ``prompt``.
        segments: Its tokens.
        end: Text of the end token; empty if the sequence has none, as a prompt.
        end_trained: Whether the loss includes the end token.
    """

    name: str
    segments: list[Segment]
    end: str
    end_trained: bool


@dataclass(frozen=True)
class Lengths:
    """Distribution of the tokens per row.

    Attributes:
        edges: [bins + 1] bounds of the bins, each but the last exclusive above.
        rows: [bins] rows per bin.
        median, p95, longest: Quantiles of the rows that are used, in tokens.
    """

    edges: list[int]
    rows: list[int]
    median: int
    p95: int
    longest: int


@dataclass(frozen=True)
class DataView:
    """Rows of a stage and what is counted about all of them.

    Attributes:
        stage: sft, rm or ppo.
        kind: Kind of data.
        source: Name of the source.
        rows: First training rows.
        read: Rows of the source.
        train, held_out: Rows used.
        dropped: Cause -> unusable rows.
        left_out: Cause -> rows that are not needed.
        too_long: Rows over `max_length`, which are dropped.
        truncated: Rows that are cut; always 0, since longer ones are dropped.
        duplicates: Rows used whose token ids an earlier row has, and repeated prompts.
        chosen_equals_rejected: Comparisons of equal responses, which are dropped.
        max_length: Most tokens of a row.
        sources: Counts of each source of a mixture, before rows that are too long are dropped.
        lengths: Tokens per row.
        notes: Sentences about how the rows were read, such as columns that nothing reads.
    """

    stage: str
    kind: Kind
    source: str
    rows: list[list[ShownSequence]]
    read: int
    train: int
    held_out: int
    dropped: dict[str, int]
    left_out: dict[str, int]
    too_long: int
    truncated: int
    duplicates: int
    chosen_equals_rejected: int
    max_length: int
    lengths: Lengths
    sources: tuple[SourceCounts, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """One part of a data set, encoded.

    Attributes:
        kind: Kind of data.
        part: Name of the part.
        rows: Rows encoded.
        seconds: Duration.
        reused: Whether it was stored before.
        digest: Name of its cache entry; None if it is too small to be stored.
    """

    kind: Kind
    part: str
    rows: int
    seconds: float
    reused: bool
    digest: str | None


def cache_path() -> Path | None:
    """Return the folder that rows and token ids are stored in; None if they are not."""
    from rlhfctl.data.cache import cache_folder

    return cache_folder()


def clean_cache(unused_days: float) -> Cleaned:
    """Remove what was not used for some days; raises OSError where it cannot."""
    from rlhfctl.data.cache import clean

    return clean(unused_days)


def find_duplicates(
    recipe: Recipe, threshold: float, count: int, progress: Progress
) -> Iterator[DuplicateCounts]:
    """Yield the near-duplicates of each comparison; arguments and errors are those of the room."""
    from rlhfctl.data.contamination import find_duplicates as find

    return find(recipe, threshold, count, progress)


def view_data(recipe: Recipe, stage: str, count: int, progress: Progress) -> DataView:
    """Read and encode the data of a stage, and return its first rows and its counts.

    Args:
        recipe: The recipe.
        stage: One of `TRAINING_STAGES`.
        count: Training rows to return.
        progress: Receives the progress of many rows.

    Raises:
        DataError: The source cannot be used.
        RecipeError: The tokenizer and the rows do not fit.
        EnvironmentFault: The tokenizer or a Hub data set cannot be loaded.
    """
    from rlhfctl.data.formatting import encode
    from rlhfctl.data.row_counts import REPEATED, bad_limit

    # What a stage trains on comes first in the table.
    (kind,) = (kind for kind in _KINDS if kind == stage_named(stage).data[0])
    split = _load(recipe, kind, progress)
    encoder = _encoder(recipe, kind)
    parts = [
        encode(rows, encoder, bad_limit(recipe.data), progress)
        for rows in (split.train, split.held_out)
    ]
    counts = replace(split.report, dropped=dict(split.report.dropped))
    for part in parts:
        counts.add_encoding(part.report)
    lengths, duplicates = _measured([part.dataset for part in parts])
    return DataView(
        stage=stage,
        kind=kind,
        source=counts.name,
        rows=list(_shown(split.train, encoder, count)),
        read=counts.read,
        train=len(parts[0].dataset),
        held_out=len(parts[1].dataset),
        dropped=counts.dropped,
        left_out=counts.left_out,
        too_long=sum(n for cause, n in counts.dropped.items() if cause.startswith(_TOO_LONG)),
        truncated=0,
        duplicates=max(0, duplicates - counts.repeats) + counts.left_out.get(REPEATED, 0),
        chosen_equals_rejected=counts.dropped.get(_EQUAL, 0),
        max_length=encoder.max_length,
        lengths=_distribution(lengths),
        sources=counts.sources,
        notes=(*counts.notes, *(note for part in parts for note in part.report.notes)),
    )


def prepare_data(recipe: Recipe, progress: Progress) -> Iterator[Prepared]:
    """Read and encode everything that the stages will read, and store it in the cache.

    Yields:
        One result per part of a data set.

    Raises what `view_data` raises.
    """
    from rlhfctl.data.formatting import encode
    from rlhfctl.data.row_counts import bad_limit

    for kind in _KINDS:
        started = time.monotonic()
        split = _load(recipe, kind, progress)
        encoder = _encoder(recipe, kind)
        for name, rows in _parts(recipe, kind, split, progress):
            encoded: Encoded = encode(rows, encoder, bad_limit(recipe.data), progress)
            seconds = time.monotonic() - started
            yield Prepared(kind, name, len(encoded.dataset), seconds, encoded.reused, encoded.key)
            started = time.monotonic()


def _parts(
    recipe: Recipe, kind: Kind, split: Split, progress: Progress
) -> Iterator[tuple[str, Dataset]]:
    from rlhfctl.data.split import set_apart

    section = recipe.reward_model
    if kind == "comparisons" and (
        section.labels != "as_given" or "weight" in split.train.column_names
    ):
        progress.note(
            "comparisons: training rows are encoded by train-rm, which first aggregates their labels"
        )
    elif kind == "comparisons" and section.judge_share:
        source = recipe.data.comparisons.title
        main, judge = set_apart(split.train, section.judge_share, source, "judge")
        yield from (("train", main), ("held-out reward model", judge))
    else:
        yield "train", split.train
    yield "held out", split.held_out


def _load(recipe: Recipe, kind: Kind, progress: Progress) -> Split:
    from rlhfctl.data import sources

    if kind == "demonstrations":
        return sources.load_demonstrations(recipe, progress)
    if kind == "comparisons":
        margins = recipe.reward_model.use_margin
        return sources.load_comparisons(recipe, progress, margins=margins)
    return sources.load_prompts(recipe, progress)


def _encoder(recipe: Recipe, kind: Kind) -> Encoder:
    from rlhfctl.data.encoders import Encoder
    from rlhfctl.data.formatter import Formatter, stop_ids
    from rlhfctl.models.tokenizer import read_tokenizer

    formatter = Formatter(
        read_tokenizer(recipe.model),
        recipe.model.chat_template_kwargs,
        getattr(recipe.data, kind).special_tokens == "parse",
    )
    stop_ids(formatter, recipe.generation.stop_tokens)  # refuses unknown tokens
    limits = {
        "demonstrations": recipe.sft.max_length,
        "comparisons": recipe.reward_model.max_length,
        "prompts": recipe.generation.max_prompt_length,
    }
    return Encoder(formatter, kind, limits[kind], recipe.sft.assistant_turns)


def _shown(rows: Dataset, encoder: Encoder, count: int) -> Iterator[list[ShownSequence]]:
    """Yield the sequences of the first rows that fit."""
    from rlhfctl.data.encoders import EncodedRow

    shown = 0
    for start in range(0, len(rows), max(1, count)):
        batch = rows[start : start + max(1, count)]
        for prompt, row in zip(batch["prompt"], encoder.rows(batch), strict=True):
            if shown == count:
                return
            if isinstance(row, EncodedRow) and row.length <= encoder.max_length:
                shown += 1
                yield list(_sequences(row.columns, encoder.formatter, prompt))


def _sequences(
    columns: dict[str, Any], formatter: Formatter, prompt: Any
) -> Iterator[ShownSequence]:
    if "completion_mask" in columns:
        yield _sequence("row", columns["input_ids"], columns["completion_mask"], formatter)
    elif "chosen_ids" in columns:
        before = len(formatter.prompt_ids(prompt))
        for side in ("chosen", "rejected"):
            ids = columns[f"{side}_ids"]
            mask = [0] * before + [1] * (len(ids) - before)
            yield _sequence(side, ids, mask, formatter)
    else:
        ids = columns["input_ids"]
        yield _sequence("prompt", ids, [0] * len(ids), formatter, ends=False)


def _sequence(
    name: str, ids: Sequence[int], mask: Sequence[int], formatter: Formatter, *, ends: bool = True
) -> ShownSequence:
    segments = []
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or mask[place] != mask[start]:
            text = formatter.tokenizer.decode(list(ids[start:place]), skip_special_tokens=False)
            segments.append(Segment(text, place - start, bool(mask[start])))
            start = place
    last = ids[-1] if ends and ids[-1] in formatter.stops else None
    end = "" if last is None else formatter.tokenizer.decode([last])
    return ShownSequence(name, segments, end, last is not None and bool(mask[-1]))


def _measured(parts: Sequence[Dataset]) -> tuple[list[int], int]:
    """Return the tokens of each row's longest sequence, and the number of repeated rows."""
    lengths: list[int] = []
    seen: Counter[int] = Counter()
    for part in parts:
        names = [
            name for name in ("input_ids", "chosen_ids", "rejected_ids") if name in part.features
        ]
        for table in part.with_format("arrow").select_columns(names).iter(batch_size=1000):
            columns = [table[name].to_pylist() for name in names]
            for sequences in zip(*columns, strict=True):
                lengths.append(max(map(len, sequences)))
                seen[hash(tuple(map(tuple, sequences)))] += 1
    return lengths, sum(count - 1 for count in seen.values())


def _distribution(lengths: Sequence[int]) -> Lengths:
    ordered = sorted(lengths)
    width = max(1, -(-(ordered[-1] + 1) // _BINS))
    bins = Counter(length // width for length in ordered)
    used = range(ordered[-1] // width + 1)
    return Lengths(
        edges=[width * number for number in (*used, used[-1] + 1)],
        rows=[bins[number] for number in used],
        median=ordered[(len(ordered) - 1) // 2],
        p95=ordered[int(0.95 * (len(ordered) - 1))],
        longest=ordered[-1],
    )
