"""The `data duplicates` command."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from typing import TYPE_CHECKING

from rlhfctl.cli.resolve import resolve
from rlhfctl.console import Terminal, safe
from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.progress import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.data_view import DuplicateCounts

_LONGEST = 70


def show_duplicates(options: RunOptions, threshold: float, count: int) -> None:
    """Print the number of near-duplicates in a recipe's data, and the most similar pairs.

    Raises:
        UsageError: The threshold is no share, or the number of pairs is negative.
        EnvironmentFault: datasketch is not installed.
        RlhfctlError: The recipe or its data cannot be used.
    """
    if not 0.0 < threshold < 1.0:
        raise UsageError(f"--threshold {threshold:g}: give a number between 0 and 1")
    if count < 0:
        raise UsageError(f"-n {count}: give 0 or more pairs")
    if importlib.util.find_spec("datasketch") is None:
        raise EnvironmentFault(
            "datasketch is not installed", "data duplicates", "pip install 'rlhfctl[dedup]'"
        )
    from rlhfctl.data_view import find_duplicates

    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    recipe = resolve(options).loaded.recipe
    with View(terminal) as progress:
        results = list(find_duplicates(recipe, threshold, count, progress))
    if options.json:
        values = [asdict(result) for result in results]
        terminal.write_json({"ok": True, "threshold": threshold, "comparisons": values})
        return
    terminal.result(*_lines(results))


def _lines(results: list[DuplicateCounts]) -> Iterator[Text]:
    for result in results:
        yield safe(
            f"{result.where}: {result.affected:,} of {result.prompts:,} prompts have a "
            "near-duplicate",
            "bold",
        )
        for pair in result.nearest:
            yield safe(f"  similarity {pair.similarity:.2f}")
            for text in (pair.first, pair.second):
                line = " ".join(text.split())
                yield safe(f"    {line if len(line) <= _LONGEST else line[: _LONGEST - 3] + '...'}")
