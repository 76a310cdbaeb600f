"""Report as Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlhfctl.report import verdict
from rlhfctl.report.blocks import Bar, FactGroups, Note, Table
from rlhfctl.report.sections import sections
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rlhfctl.report.blocks import Block, Cell, Section
    from rlhfctl.report.sources import RunFacts

# A colon only where it could begin an address or end an emoji's name.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&@$]|:(?=\S)|(?<=[wW])\.)")
_LEFT_OUT = {"Drift"}


def report(facts: RunFacts) -> str:
    """Return verdict and key tables of a run; text that a model wrote is left out.

    Other text from data sets and recipes is escaped, so that it contains no markup, link or
    mention.
    """
    result = verdict.verdict_of(facts)
    lines = [
        f"## {plain(facts.name)}: {plain(result.label)}",
        "",
        f"**{plain(result.sentence)}**",
        "",
    ]
    if result.cautions:
        lines += [*(f"- {plain(caution)}" for caution in result.cautions), ""]
    shown = [section for section in sections(facts) if section.title not in _LEFT_OUT]
    return "\n".join([*lines, *written(shown)])


def written(shown: Iterable[Section], level: int = 3) -> Iterator[str]:
    """Yield the lines of sections: their notes and their tables without pictures."""
    for section in shown:
        lines = [line for block in section.blocks for line in _block(block)]
        if lines:
            yield from (f"{'#' * level} {plain(section.title)}", "", *lines)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table) and not block.has_model_text:
        yield from _table(block)
        yield ""
    elif isinstance(block, FactGroups):
        yield from (_row(["Setting", "Value"]), _row(["---", "---"]))
        for group in block.groups:
            yield _row([f"**{plain(group.heading)}**", ""])
            yield from (_row([plain(name), plain(value)]) for name, value in group.rows)
        yield ""
    elif isinstance(block, Note):
        yield f"> {plain(block.text)}" if block.warning else plain(block.text)
        yield ""


def plain(text: str) -> str:
    """Return text on one line in which nothing is Markdown, HTML or a mention."""
    return _SPECIAL.sub(r"\\\1", " ".join(visible(text).split()))


def _table(block: Table) -> Iterator[str]:
    indices = [
        index for index, column in enumerate(block.columns) if column.kind not in {"scale", "range"}
    ]
    yield _row([plain(block.columns[index].label) for index in indices])
    rule = [("---:" if block.columns[index].kind == "number" else "---") for index in indices]
    yield _row(rule)
    for group in block.groups:
        if group.heading:
            note = f" ({plain(group.note)})" if group.note else ""
            yield _row([f"**{plain(group.heading)}**{note}", *[""] * (len(indices) - 1)])
        for row in group.rows:
            yield _row([_cell(row[index]) for index in indices])


def _cell(cell: Cell) -> str:
    return "" if cell is None or isinstance(cell, Bar) else plain(str(cell))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
