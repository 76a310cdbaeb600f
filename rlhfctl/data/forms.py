"""Forms of data sets: which columns each has, and how its rows become those of TRL's formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlhfctl.data.rows import BadRowError, LeftOutError

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["demonstrations", "comparisons", "prompts"]
Source = Mapping[str, Any]
Item = Source | BadRowError | LeftOutError
Convert = Callable[[Iterable[tuple[int, Source]], Kind, bool], Iterator[tuple[int, Item]]]
ConvertRow = Callable[[Source, Kind, bool], Iterable[Item]]

WEIGHT = "weight"
EXTRAS = ("annotator", "margin", "source")
"""Columns that comparisons of any form may have."""
TOOLS = "tools"
"""Column that rows of any form may have: JSON schemas of functions, as OpenAI's API has them."""

SYSTEM = ("system", "system_prompt")
"""Columns that rows of any form may have: the text of a system message."""
ASKED = (TOOLS, *SYSTEM)
"""Columns that belong to the prompt, whatever its form."""


def extras_of(kind: Kind) -> tuple[str, ...]:
    """Return the columns that a kind of data may have whatever its form."""
    return (*EXTRAS, *ASKED) if kind == "comparisons" else ASKED


@dataclass(frozen=True)
class Form:
    """One form of rows.

    Attributes:
        name: Its `preset`.
        columns: Required columns.
        convert: Converts numbered source rows, for a kind of data, to rows in TRL's formats. The
            last argument is the recipe's `as_chat`: plain questions become messages.
        optional: Columns that are read if present.
        prefix: Columns that start with it and end with a number are read, too.
        fits: Further test on the values of the first rows, unless the form is the preset.
        whole: Rows of the source depend on each other, so that all of them must be read.
        note: Sentence for the user about how its rows are read.
    """

    name: str
    columns: tuple[str, ...]
    convert: Convert
    optional: tuple[str, ...] = ()
    prefix: str | None = None
    fits: Callable[[Sequence[Source]], bool] | None = field(default=None)
    whole: bool = False
    note: str = ""


def per_row(convert: ConvertRow) -> Convert:
    """Return the conversion of all rows from that of one row."""

    def all_rows(
        rows: Iterable[tuple[int, Source]], kind: Kind, chat: bool
    ) -> Iterator[tuple[int, Item]]:
        for number, row in rows:
            try:
                for item in convert(row, kind, chat):
                    yield number, _with_extras(item, row, kind)
            except (BadRowError, LeftOutError) as error:
                yield number, error

    return all_rows


def _with_extras(item: Item, row: Source, kind: Kind) -> Item:
    if not isinstance(item, Mapping):
        return item
    return {name: row[name] for name in extras_of(kind) if name in row} | dict(item)


def as_given(
    rows: Iterable[tuple[int, Source]], kind: Kind, chat: bool
) -> Iterator[tuple[int, Item]]:
    """Return rows that are in TRL's formats already."""
    del kind, chat
    yield from rows


def repeats_prompt(row: Source, *responses: str) -> bool:
    """Return whether all responses of a row are text that begins with its prompt."""
    prompt = row.get("prompt")
    return (
        isinstance(prompt, str)
        and bool(prompt.strip())
        and all(_begins(row.get(name), prompt) for name in responses)
    )


def _begins(response: Any, prompt: str) -> bool:
    return isinstance(response, str) and response.startswith(prompt)


def without_prompts(*responses: str) -> Convert:
    """Return the conversion of rows whose responses repeat the prompt; others stay as they are."""

    def convert(
        rows: Iterable[tuple[int, Source]], kind: Kind, chat: bool
    ) -> Iterator[tuple[int, Item]]:
        del kind, chat
        for number, row in rows:
            if not repeats_prompt(row, *responses):
                yield number, row
                continue
            cut = len(row["prompt"])
            yield number, {**row, **{name: row[name][cut:] for name in responses}}

    return convert


def answered(question: str | list[dict[str, str]], response: str) -> dict[str, Any]:
    """Return a demonstration of a question with its response."""
    return {"prompt": question, "completion": response}


def compared(question: Any, chosen: Any, rejected: Any, **extras: Any) -> dict[str, Any]:
    """Return a comparison."""
    return {"prompt": question, "chosen": chosen, "rejected": rejected, **extras}
