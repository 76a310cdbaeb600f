"""Conversion of rows to token ids for the trainers, with the counts of rows that are left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rlhfctl.data import cache
from rlhfctl.data.digests import are_stored, digest_of, formatter_digest, rows_digest
from rlhfctl.data.encoders import COMPARISON_EXTRAS as COMPARISON_EXTRAS  # noqa: PLC0414
from rlhfctl.data.encoders import EncodedBatch, Encoder
from rlhfctl.data.formatter import Formatter as Formatter  # noqa: PLC0414, TC001
from rlhfctl.data.progress import NO_PROGRESS
from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.workers import in_order, worker_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

    from rlhfctl.data.arrow_parts import PartWriter
    from rlhfctl.data.cache import JsonObject
    from rlhfctl.data.progress import Progress

FEWEST_STORED = 5_000
"""Rows from which their ids are stored, as are those of all rows that are stored themselves."""
FEWEST_SHARED = 20_000
"""Rows from which several processes encode; starting these takes some seconds."""
_CHUNK = 1024
_TOO_LONG_HINTS = {
    "demonstrations": "raise sft.max_length, or shorten the rows",
    "comparisons": "raise reward_model.max_length, or shorten the rows",
    "prompts": "raise generation.max_prompt_length, or shorten the prompts",
}


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows and the counts of dropped rows.

    Attributes:
        dataset: Token ids of each usable row.
        report: Rows read, usable and dropped, by cause.
        longest: Length of the longest row before dropping, in tokens.
        reused: Whether the ids were stored before.
        key: Name of the cache entry; None if the ids are not stored.
    """

    dataset: Dataset
    report: RowCounts
    longest: int
    reused: bool = False
    key: str | None = None


def encode_demonstrations(
    rows: Dataset,
    formatter: Formatter,
    max_length: int,
    bad_limit: float = 1.0,
    assistant_turns: str = "last",
    progress: Progress = NO_PROGRESS,
) -> Encoded:
    """Encode demonstrations for TRL's SFTTrainer.

    Args:
        rows: Demonstrations.
        formatter: Formatter of the demonstrations.
        max_length: Longest row in tokens; longer ones are dropped.
        bad_limit: Largest share of unusable rows; only 0 is checked here, others over all parts.
        assistant_turns: ``last``, or ``all`` for a loss on earlier answers too.
        progress: Receives the progress of many rows.

    Returns:
        Columns ``input_ids`` (prompt, response and end token) and ``completion_mask`` (1 on the
        response and end token, 0 on the prompt, except earlier answers if they count).

    Raises:
        DataError: Rows are too long and `bad_limit` is 0, or no row is left.
        RecipeError: There is no chat template for conversations.
    """
    encoder = Encoder(formatter, "demonstrations", max_length, assistant_turns)
    return encode(rows, encoder, bad_limit, progress)


def encode_comparisons(
    rows: Dataset,
    formatter: Formatter,
    max_length: int,
    bad_limit: float = 1.0,
    progress: Progress = NO_PROGRESS,
) -> Encoded:
    """Encode comparisons for TRL's RewardTrainer.

    Returns:
        Columns ``chosen_ids`` and ``rejected_ids`` (prompt, response and end token),
        ``prompt_length`` (the same for both), and the
        columns of `COMPARISON_EXTRAS` present. Both sides must fit in `max_length` tokens.

    Raises:
        DataError: Rows are too long and `bad_limit` is 0, or no row is left.
        RecipeError: There is no chat template for conversations.
    """
    return encode(rows, Encoder(formatter, "comparisons", max_length), bad_limit, progress)


def encode_prompts(
    rows: Dataset,
    formatter: Formatter,
    max_length: int,
    bad_limit: float = 1.0,
    progress: Progress = NO_PROGRESS,
) -> Encoded:
    """Encode prompts for sampling.

    Returns:
        Columns ``input_ids`` and the unchanged columns of the rows, such as ``prompt``. Prompts
        over `max_length` tokens are dropped.

    Raises:
        DataError: Prompts are too long and `bad_limit` is 0, or no prompt is left.
        RecipeError: There is no chat template for conversations.
    """
    return encode(rows, Encoder(formatter, "prompts", max_length), bad_limit, progress)


def encode(rows: Dataset, encoder: Encoder, bad_limit: float, progress: Progress) -> Encoded:
    """Encode rows, or take their ids from the cache, and count those that are left out.

    Args:
        rows: Rows of a data set.
        encoder: Its kind, formatter and limits.
        bad_limit: Largest share of unusable rows.
        progress: Receives the progress of many rows.

    Raises:
        DataError: Rows are unusable and `bad_limit` is 0, or no row is left.
        RecipeError: There is no chat template for conversations.
    """

    def make(parts: PartWriter) -> JsonObject:
        total = EncodedBatch()
        shown = len(rows) >= FEWEST_STORED
        if shown:
            progress.start(f"{encoder.kind}: encoding", len(rows), "rows")
        processes = worker_count() if len(rows) >= FEWEST_SHARED else 1
        for batch in in_order(encoder, _chunks(rows), processes):
            if batch.table is not None:
                parts.add(batch.table)
            total.add_counts(batch)
            if shown:
                progress.step(total.read, {})
        if shown:
            progress.finish()
        return _record(total, encoder)

    key = _key(rows, encoder)
    entry = cache.stored(key, make, progress)
    report = RowCounts.of(entry.record["report"])
    # Training and held-out rows are encoded apart: their share counts together.
    report.check(0.0 if bad_limit == 0.0 else 1.0, entry.record["hint"])
    return Encoded(entry.rows, report, entry.record["longest"], entry.reused, key)


def token_count(rows: Dataset) -> int:
    """Return the number of ids in the column ``input_ids``."""
    import pyarrow.compute as pc

    tables = rows.with_format("arrow").select_columns(["input_ids"]).iter(batch_size=10_000)
    return sum(int(pc.sum(pc.list_value_length(table["input_ids"])).as_py()) for table in tables)


def _chunks(rows: Dataset) -> Iterator[bytes]:
    import pyarrow as pa

    for table in rows.with_format("arrow").iter(batch_size=_CHUNK):
        # A slice would be pickled with the whole of the buffers that it is a part of.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        yield sink.getvalue().to_pybytes()


def _key(rows: Dataset, encoder: Encoder) -> str | None:
    """Return the name of the rows' cache entry; None if they are not stored."""
    if cache.cache_folder() is None or not (len(rows) >= FEWEST_STORED or are_stored(rows)):
        return None
    formatter = formatter_digest(encoder.formatter)
    if formatter is None:
        return None
    return digest_of(
        {
            "what": "ids",
            "rows": rows_digest(rows),
            "formatter": formatter,
            "kind": encoder.kind,
            "max_length": encoder.max_length,
            "assistant_turns": encoder.assistant_turns,
        }
    )


def _record(total: EncodedBatch, encoder: Encoder) -> JsonObject:
    """Return the counts of a whole data set as JSON values."""
    report = RowCounts(encoder.kind, total.read, total.usable, dict(total.dropped))
    hint = total.hint
    if total.too_long:
        cause = f"longer than {encoder.max_length:,} tokens (longest {total.longest:,})"
        report.dropped[cause] = total.too_long
        hint = hint or _TOO_LONG_HINTS[encoder.kind]
    noted = dict(total.noted)
    if total.spelling and not encoder.formatter.parse_special:
        noted[_spelling(encoder.kind, total.example)] = total.spelling
    report.notes = tuple(
        f"{count:,} of {report.read:,} rows {clause}" for clause, count in noted.items()
    )
    return {
        "report": asdict(report),
        "hint": hint or _TOO_LONG_HINTS[encoder.kind],
        "longest": total.longest,
    }


def _spelling(name: str, example: str) -> str:
    return (
        f"spell a control token, such as {example!r}; it is encoded as text. If they were rendered "
        f"beforehand, set data.{name}.special_tokens: parse"
    )
