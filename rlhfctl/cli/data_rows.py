"""The `data show`, `data prepare` and `data clean` commands."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from rlhfctl.cli.resolve import resolve
from rlhfctl.console import Terminal, duration, safe
from rlhfctl.errors import UsageError
from rlhfctl.progress import View

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.data_view import DataView, Lengths, Segment, ShownSequence

_WIDTH = 80
_INDENT = "  "
_LONGEST_SEGMENT = 640
_BAR = 40
_TITLES = {
    "row": "",
    "chosen": "chosen",
    "rejected": "rejected",
    "prompt": "",
}
_MEANINGS = {
    "demonstrations": ("in the loss", "not in the loss"),
    "comparisons": ("the response that is scored, at its last token", "its prompt"),
    "prompts": ("", "the prompt that responses are sampled after"),
}


def show_data(options: RunOptions, stage: str, count: int, *, full: bool) -> None:
    """Print the rows of a stage as the model reads them, and counts over all rows.

    Raises:
        RlhfctlError: The recipe or its data cannot be used.
    """
    from rlhfctl.data_view import TRAINING_STAGES, view_data

    if stage not in TRAINING_STAGES:
        raise UsageError(f"--stage {stage}: choose one of {', '.join(TRAINING_STAGES)}")
    if count < 0:
        raise UsageError(f"-n {count}: give 0 or more rows")
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    recipe = resolve(options).loaded.recipe
    with View(terminal) as progress:
        seen = view_data(recipe, stage, count, progress)
    if options.json:
        terminal.write_json({"ok": True} | asdict(seen))
        return
    coloured = sys.stdout.isatty() and not Console().no_color
    terminal.result(*_shown(seen, coloured=coloured, full=full))


def prepare_data(options: RunOptions) -> None:
    """Encode all that the stages of a recipe read, and store it.

    Raises:
        RlhfctlError: The recipe or its data cannot be used.
    """
    from rlhfctl.data_view import cache_path
    from rlhfctl.data_view import prepare_data as prepare

    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    recipe = resolve(options).loaded.recipe
    folder = cache_path()
    results = []
    with View(terminal) as progress:
        for result in prepare(recipe, progress):
            results.append(result)
            how = "already stored" if result.reused else f"in {duration(result.seconds)}"
            small = "" if result.digest else "; too few to store"
            terminal.note(f"{result.kind}, {result.part}: {result.rows:,} rows, {how}{small}")
    if options.json:
        values = [asdict(result) for result in results]
        terminal.write_json({"ok": True, "folder": str(folder or ""), "parts": values})
        return
    stored = sum(result.digest is not None for result in results)
    terminal.result(f"{stored} of {len(results)} parts are stored in {folder or 'no folder'}")


def clean_data(unused_days: float, *, as_json: bool, quiet: bool) -> None:
    """Remove the stored rows and token ids.

    Raises:
        UsageError: The cache cannot be removed, or the number of days is negative.
    """
    from rlhfctl.data_view import cache_path, clean_cache

    if unused_days < 0.0:
        raise UsageError(f"--unused {unused_days:g}: give 0 or more days")
    terminal = Terminal(quiet=quiet, as_json=as_json)
    folder = cache_path()
    try:
        cleaned = clean_cache(unused_days)
    except OSError as error:
        raise UsageError(f"the cache cannot be removed: {error.strerror}", str(folder)) from error
    if as_json:
        terminal.write_json({"ok": True, "folder": str(folder or "")} | asdict(cleaned))
        return
    size = f"{cleaned.bytes / 2**20:,.1f} MiB"
    terminal.result(f"{cleaned.entries} entries removed from {folder or 'no folder'}, {size}")


def _shown(seen: DataView, *, coloured: bool, full: bool) -> Iterator[Text]:
    trained, other = _MEANINGS[seen.kind]
    if seen.rows:
        legend = [("trained", trained)] if trained else []
        for name, meaning in [*legend, ("other", other)]:
            mark = _marked("text", trained=name == "trained", coloured=coloured)
            yield Text.assemble(mark, f"  {meaning}")
    for number, sequences in enumerate(seen.rows, start=1):
        for sequence in sequences:
            yield Text()
            yield from _sequence(seen, number, sequence, coloured=coloured, full=full)
    yield Text()
    yield from _counts(seen)
    yield Text()
    yield from _histogram(seen.lengths)


def _sequence(
    seen: DataView, number: int, sequence: ShownSequence, *, coloured: bool, full: bool
) -> Iterator[Text]:
    tokens = sum(segment.tokens for segment in sequence.segments)
    trained = sum(segment.tokens for segment in sequence.segments if segment.trained)
    parts = [f"row {number}", _TITLES[sequence.name], f"{tokens:,} tokens"]
    if seen.kind == "demonstrations":
        ending = "trained" if sequence.end_trained else "not trained"
        parts += [f"{trained:,} trained", f"end {sequence.end!r} {ending}"]
    elif sequence.end:
        parts += [f"end {sequence.end!r}"]
    yield safe(", ".join(part for part in parts if part), "bold")
    body = Text()
    for segment in sequence.segments:
        text = segment.text if full else _cut(segment)
        body.append_text(_marked(text, trained=segment.trained, coloured=coloured))
    for line in body.wrap(Console(width=_WIDTH), _WIDTH - len(_INDENT)):
        line.rstrip()
        yield Text.assemble(_INDENT, line)


def _marked(text: str, *, trained: bool, coloured: bool) -> Text:
    """Return text in the colour of its meaning; without colours, trained text in brackets."""
    if coloured:
        return safe(text, "bold green" if trained else "dim")
    return safe(f"[[{text}]]" if trained else text)


def _cut(segment: Segment) -> str:
    text, half = segment.text, _LONGEST_SEGMENT // 2
    if len(text) <= _LONGEST_SEGMENT:
        return text
    return f"{text[:half]} (... {len(text) - 2 * half:,} characters ...) {text[-half:]}"


def _counts(seen: DataView) -> Iterator[Text]:
    yield safe(f"{seen.kind} of {seen.source}", "bold")
    rows = [
        ("read", seen.read, ""),
        ("used for training", seen.train, ""),
        ("held out", seen.held_out, ""),
        ("dropped", sum(seen.dropped.values()), ""),
        *((f"  {cause}", count, "") for cause, count in seen.dropped.items()),
        *((f"left out: {cause}", count, "") for cause, count in seen.left_out.items()),
        ("truncated", seen.truncated, f"over {seen.max_length:,}: dropped"),
        ("duplicate", seen.duplicates, ""),
    ]
    if seen.kind == "comparisons":
        rows.append(("chosen equals rejected", seen.chosen_equals_rejected, ""))
    rows += [
        (f"{source.name}", source.train, f"for training, {source.held_out:,} held out")
        for source in seen.sources
    ]
    for name, count, remark in rows:
        yield safe(f"{_INDENT}{name[:44]:<44} {count:>10,}  {remark}".rstrip())
    for note in seen.notes:
        yield safe(f"{_INDENT}{note}")


def _histogram(lengths: Lengths) -> Iterator[Text]:
    yield safe(
        f"tokens per row: median {lengths.median:,}, 95 % up to {lengths.p95:,}, longest "
        f"{lengths.longest:,}",
        "bold",
    )
    most = max(lengths.rows)
    for start, stop, count in zip(lengths.edges, lengths.edges[1:], lengths.rows, strict=False):
        bar = "#" * round(_BAR * count / most)
        yield safe(f"{_INDENT}{start:>6,} to {stop - 1:>6,} {count:>10,}  {bar}".rstrip())
