"""Rows of a recipe's data set as stored in the cache: checked, in order, with their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.data.cache import cache_folder
from rlhfctl.data.digests import digest_of, files_digest
from rlhfctl.data.files import is_local, local_files
from rlhfctl.data.hub import read_hub
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rlhfctl.data.arrow_parts import PartWriter
    from rlhfctl.data.forms import Kind
    from rlhfctl.data.progress import Progress
    from rlhfctl.data.raw import RawRows
    from rlhfctl.data.rows import Row
    from rlhfctl.recipe.schema import DatasetSection

POSITION = "split_position"
"""Column of stored rows: the `position` of each row's prompt."""
FEWEST_BYTES_STORED = 1 << 22
"""Size of a source from which its rows are stored; smaller ones are read in a second."""
_FEWEST_HUB_ROWS = 5000
_BATCH = 1000
_PERCENT = 100


def rows_key(section: DatasetSection, kind: Kind, seed: int, *, margins: bool) -> str | None:
    """Return the name of the cache entry of a section's rows; None if they are not stored.

    Raises:
        DataError: The source is missing, or a file cannot be read.
        EnvironmentFault: The Hub data set cannot be loaded.
        UnsafeError: The source is a script.
    """
    if section.source == "embedded" or cache_folder() is None:
        return None
    if is_local(section.source):
        contents = _local_contents(section)
    else:
        rows: Any = read_hub(section.source, section.config, section.split, section.revision).rows
        contents = None if len(rows) < _FEWEST_HUB_ROWS else [("hub", str(rows._fingerprint))]
    if contents is None:
        return None
    read = ("source", "config", "split", "columns", "preset", "as_chat", "max_rows")
    return digest_of(
        {
            "what": "rows",
            "kind": kind,
            "margins": margins,
            "files": contents,
            "section": {name: getattr(section, name) for name in read},
            "seed": None if section.max_rows is None else seed,
        }
    )


def _local_contents(section: DatasetSection) -> list[tuple[str, str]] | None:
    """Return the digests of a source's files; None for a small source."""
    try:
        files = local_files(section.source, section.split)
        if sum(file.stat().st_size for file in files) < FEWEST_BYTES_STORED:
            return None
        return files_digest(files)
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", str(error.filename or section.source)
        ) from error


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
