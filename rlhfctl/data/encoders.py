"""Token ids of batches of rows, with what is counted about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlhfctl.data.assistant_turns import earlier_answers
from rlhfctl.data.rendering import RenderingError
from rlhfctl.data.rows import is_conversation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rlhfctl.data.formatter import Formatter
    from rlhfctl.data.forms import Kind

COMPARISON_EXTRAS = ("margin", "annotator", "source", "target", "weight")
"""Optional columns of comparisons; `target` and `weight` are aggregated from several labels."""
_BATCH = 256
_IDS = ("input_ids", "chosen_ids", "rejected_ids")
_MASK = "completion_mask"

Batch = dict[str, list[Any]]


@dataclass(frozen=True)
class EncodedRow:
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


@dataclass
class EncodedBatch:
    """The rows of a batch that fit, and the counts of the others.

    Attributes:
        table: pyarrow table of the fitting rows; None if there are none.
        read: Rows read.
        usable: Rows that fit.
        dropped: Cause -> rows that could not be rendered.
        hint: Advice about the first of these.
        too_long: Rows over the limit.
        longest: Tokens of the longest row.
        spelling: Usable rows that spell a control token, and the first such token.
        noted: Clause -> usable rows that it is about.
    """

    table: Any = None
    read: int = 0
    usable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    hint: str = ""
    too_long: int = 0
    longest: int = 0
    spelling: int = 0
    example: str = ""
    noted: Counter[str] = field(default_factory=Counter)

    def add_counts(self, other: EncodedBatch) -> None:
        """Add the counts of the next batch."""
        self.read += other.read
        self.usable += other.usable
        self.dropped.update(other.dropped)
        self.hint = self.hint or other.hint
        self.too_long += other.too_long
        self.longest = max(self.longest, other.longest)
        self.spelling += other.spelling
        self.example = self.example or other.example
        self.noted.update(other.noted)


@dataclass(frozen=True)
class Encoder:
    """The rules that make token ids of one kind of rows; picklable, for other processes.

    Attributes:
        formatter: Formatter of the data set.
        kind: demonstrations, comparisons or prompts.
        max_length: Longest row in tokens; longer ones are left out.
        assistant_turns: ``last``, or ``all`` for a loss on earlier answers too.
    """

    formatter: Formatter
    kind: Kind
    max_length: int
    assistant_turns: str = "last"

    def __call__(self, table: Any) -> EncodedBatch:
        """Encode a pyarrow table of rows, or its bytes as an Arrow stream.

        Raises:
            RecipeError: There is no chat template for conversations.
            DataError: The chat template does not end.
        """
        from datasets import Dataset

        if isinstance(table, bytes):
            import pyarrow as pa

            table = pa.ipc.open_stream(pa.py_buffer(table)).read_all()
        rows = Dataset(table)
        result = EncodedBatch(read=len(rows))
        fitting = []
        for start in range(0, len(rows), _BATCH):
            for row in self.rows(rows[start : start + _BATCH]):
                if isinstance(row, RenderingError):
                    result.dropped[row.cause] += 1
                    result.hint = result.hint or row.hint
                    continue
                result.longest = max(result.longest, row.length)
                if row.length > self.max_length:
                    result.too_long += 1
                    continue
                fitting.append(row.columns)
                result.spelling += row.spelled is not None
                result.example = result.example or row.spelled or ""
                result.noted.update(row.notes)
        result.usable = len(fitting)
        result.table = _table(fitting) if fitting else None
        return result

    def rows(self, batch: Batch) -> Iterator[EncodedRow | RenderingError]:
        """Yield the encoding of each row, or why it has none; raises as a call does."""
        encode: dict[str, Callable[[Batch], Iterator[EncodedRow | RenderingError]]] = {
            "demonstrations": self._demonstrations,
            "comparisons": self._comparisons,
            "prompts": self._prompts,
        }
        return encode[self.kind](batch)

    def _demonstrations(self, batch: Batch) -> Iterator[EncodedRow | RenderingError]:
        rows = list(zip(batch["prompt"], batch["completion"], strict=True))
        for row, pair in zip(rows, self.formatter.each_pair(rows), strict=True):
            if isinstance(pair, RenderingError):
                yield pair
                continue
            before = [0] * len(pair.prompt)
            if self.assistant_turns == "all" and is_conversation(row[0]):
                try:
                    before = earlier_answers(self.formatter, row[0], pair.prompt)
                except RenderingError as error:
                    yield error
                    continue
            mask = before + [1] * len(pair.response)
            columns = {"input_ids": pair.prompt + pair.response, _MASK: mask}
            yield EncodedRow(len(mask), columns, pair.notes, self.formatter.spelled(*row))

    def _comparisons(self, batch: Batch) -> Iterator[EncodedRow | RenderingError]:
        extras = [name for name in COMPARISON_EXTRAS if name in batch]
        rows = list(zip(batch["prompt"], batch["chosen"], batch["rejected"], strict=True))
        both = [(prompt, side) for prompt, chosen, rejected in rows for side in (chosen, rejected)]
        pairs = iter(self.formatter.each_pair(both))
        others = zip(*(batch[name] for name in extras), strict=True)
        for row, one, two in zip(rows, pairs, pairs, strict=True):
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
            extra["prompt_length"] = len(one.prompt)
            notes = tuple(dict.fromkeys(one.notes + two.notes))
            yield EncodedRow(length, sides | extra, notes, self.formatter.spelled(*row))

    def _prompts(self, batch: Batch) -> Iterator[EncodedRow | RenderingError]:
        rows = zip(*batch.values(), strict=True)
        encoded = self.formatter.each_prompt(batch["prompt"])
        for prompt, ids, values in zip(batch["prompt"], encoded, rows, strict=True):
            if isinstance(ids, RenderingError):
                yield ids
                continue
            columns = {"input_ids": ids, **dict(zip(batch, values, strict=True))}
            yield EncodedRow(len(ids), columns, (), self.formatter.spelled(prompt))


def _table(rows: list[dict[str, Any]]) -> Any:
    """Return rows as a pyarrow table with the types of a data set; ids take 32 bits, masks 8."""
    import pyarrow as pa
    from datasets import Dataset

    types = dict.fromkeys(_IDS, pa.list_(pa.int32())) | {_MASK: pa.list_(pa.int8())}
    columns = {
        name: pa.array(values, types[name]) if name in types else values
        for name in rows[0]
        for values in [[row[name] for row in rows]]
    }
    return Dataset.from_dict(columns).data.table
