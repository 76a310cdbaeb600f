"""Rows of a recipe's data set as stored in the cache: checked, in order, with their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.data.cache import VARIABLE, cache_folder
from rlhfctl.data.digests import digest_of, files_digest
from rlhfctl.data.files import is_local, local_files
from rlhfctl.data.hub import cached_commit, read_hub
from rlhfctl.data.source_rows import hub_split
from rlhfctl.errors import DataError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from rlhfctl.data.arrow_parts import PartWriter
    from rlhfctl.data.forms import Kind
    from rlhfctl.data.progress import Progress
    from rlhfctl.data.raw import RawRows
    from rlhfctl.data.rows import Row
    from rlhfctl.recipe.data import SourceSection

POSITION = "split_position"
"""Column of stored rows: the `position` of each row's prompt."""
FEWEST_BYTES_STORED = 1 << 22
"""Size of a source from which its rows are stored; smaller ones are read in a second."""
_FEWEST_HUB_ROWS = 5000
_BATCH = 1000
_PERCENT = 100


def rows_key(
    sources: Sequence[SourceSection], kind: Kind, seed: int, *, margins: bool
) -> str | None:
    """Return the name of the cache entry of the rows of some sources; None if they are not stored.

    They are stored if one of the sources is large or streamed.

    Raises:
        DataError: A source is missing, or a file cannot be read.
        EnvironmentFault: The Hub data set cannot be loaded, or there is no cache to stream to.
        UnsafeError: A source is a script.
    """
    if cache_folder() is None:
        if any(part.streaming for part in sources):
            raise no_cache_to_stream_to(f"{VARIABLE} is empty")
        return None
    contents = [_content(part, seed) for part in sources]
    if not any(content.large for content in contents):
        return None
    read = ("source", "config", "split", "columns", "preset", "as_chat", "max_rows")
    parts = [
        {
            "files": content.digests(),
            "section": {name: getattr(part, name) for name in read},
            # Without a limit, streaming reads the same rows.
            "first": part.streaming and part.max_rows is not None,
            "seed": None if part.max_rows is None or part.streaming else seed,
        }
        for part, content in zip(sources, contents, strict=True)
    ]
    return digest_of({"what": "rows", "kind": kind, "margins": margins, "sources": parts})


def no_cache_to_stream_to(reason: str) -> EnvironmentFault:
    """Return the error of streamed rows that cannot be stored."""
    return EnvironmentFault(
        f"streaming stores the rows in the cache, and {reason}",
        "data",
        f"name a folder on a disk with room for them by {VARIABLE}, or set streaming: false",
    )


@dataclass(frozen=True)
class _Content:
    """Files or table that a source is read from.

    Attributes:
        large: Whether reading it takes long.
        digests: Returns names with digests.
    """

    large: bool
    digests: Callable[[], list[tuple[str, str]]]


def _content(part: SourceSection, seed: int) -> _Content:
    if part.is_generated:
        return _Content(large=False, digests=lambda: [(part.source, str(seed))])
    if not is_local(part.source):
        return _hub_content(part)
    try:
        files = local_files(part.source, part.split)
        large = sum(file.stat().st_size for file in files) >= FEWEST_BYTES_STORED
    except OSError as error:
        raise _unreadable(part, error) from error
    return _Content(large or part.streaming, lambda: _local_digests(part, files))


def _hub_content(part: SourceSection) -> _Content:
    if part.streaming:
        return _Content(large=True, digests=lambda: [("hub", hub_split(part).commit())])
    rows: Any = read_hub(part.source, part.config, part.split, part.revision).rows
    name = cached_commit(rows) or str(rows._fingerprint)
    return _Content(len(rows) >= _FEWEST_HUB_ROWS, lambda: [("hub", name)])


def _local_digests(part: SourceSection, files: Sequence[Path]) -> list[tuple[str, str]]:
    try:
        return files_digest(files)
    except OSError as error:
        raise _unreadable(part, error) from error


def _unreadable(part: SourceSection, error: OSError) -> DataError:
    where = str(error.filename or part.source)
    return DataError(f"cannot be read: {error.strerror or error}", where)


def write_rows(rows: Iterable[Row], parts: PartWriter) -> None:
    """Write normalised rows with their positions in batches."""
    from datasets import Dataset

    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            parts.add(Dataset.from_list(batch).data.table)
            batch = []
    if batch:
        parts.add(Dataset.from_list(batch).data.table)


def followed(items: Iterable[Any], raw: RawRows, kind: Kind, progress: Progress) -> Iterator[Any]:
    """Yield numbered rows, and report what share of the source was read."""
    progress.start(f"{kind}: reading", _PERCENT, "%")
    share = getattr(raw.rows, "share_read", None)
    for count, item in enumerate(items):
        if count % _BATCH == 0:
            done = share() if share else count / max(1, len(raw.rows))
            progress.step(int(_PERCENT * done), {})
        yield item
    progress.finish()
