"""Rows of local files: JSON, JSON Lines, CSV, Parquet, a folder of them, or a saved data set.

Text files are parsed here instead of by `datasets`, which does not report the line of a syntax
error, reads the CSV cell ``NA`` as missing, and converts a column of mixed types.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.data.compression import is_compressed, is_parquet, read_bytes
from rlhfctl.data.csv_files import delimiter_note, read_csv
from rlhfctl.data.folders import FORMATS, exists, files_of, format_of
from rlhfctl.data.parquet_files import read_parquet
from rlhfctl.data.raw import JoinedRows, RawRows
from rlhfctl.data.streamed_rows import StreamedRows
from rlhfctl.data.text_files import read_json, read_json_lines
from rlhfctl.errors import DataError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.data.streamed_rows import Reader

_READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
}
FEWEST_BYTES_STREAMED = 1 << 24
"""Size from which a text file is parsed in each pass; the rows of smaller ones are in memory."""
_COLUMN_ROWS = 1000
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")


def is_local(source: str) -> bool:
    """Return True if a source is a path: it exists, or it cannot be a Hub id.

    Raises:
        UnsafeError: The source is a script.
    """
    if source.endswith(".py"):
        raise UnsafeError(
            "a data set must not be a script, which would run its code here",
            source,
            "write its rows to a jsonl or parquet file and name that",
        )
    path = Path(source).expanduser()
    return (
        exists(path)
        or source.startswith(("/", ".", "~"))
        or source.count("/") > 1
        or any(mark in source for mark in "*?[\\")
        or format_of(path) != ""
    )


def read_local(
    source: str, split: str, limit: int | None = None, *, streaming: bool = False
) -> RawRows:
    """Read a file, the files that a pattern matches, a folder of files, or a saved data set.

    Args:
        source: The path or pattern; relative ones start from the current folder.
        split: Split of a saved data set; in a folder, selects the files that are named after it.
        limit: Maximum number of rows read per file; None reads all.
        streaming: No file's rows are in memory together, however small it is.

    Raises:
        DataError: The file is missing, damaged, of an unsupported type, or cannot be streamed;
            names file and line.
        UnsafeError: A folder contains a loading script and no data.
    """
    path = Path(source).expanduser()
    if exists(path) and _is_saved(path):
        return _read_saved(path, split, source)
    files, notes = files_of(path, source, split)
    fewest = 0 if streaming else FEWEST_BYTES_STREAMED
    parts = [_read_file(file, limit, fewest) for file in files]
    notes += tuple(note for part in parts for note in part.notes)
    if len(parts) == 1:
        (only,) = parts
        return RawRows(only.name, only.columns, only.rows, only.place, notes)
    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    rows = JoinedRows(parts)
    return RawRows(source, columns, rows, rows.place, (f"{len(parts)} files", *notes))


def local_files(source: str, split: str) -> list[Path]:
    """Return all files that `read_local` reads.

    Raises:
        DataError: There is no file, or none of the split.
        UnsafeError: A folder contains a loading script and no data.
    """
    path = Path(source).expanduser()
    if exists(path) and _is_saved(path):
        return sorted(file for file in path.rglob("*") if file.is_file())
    return files_of(path, source, split)[0]


def _read_file(path: Path, limit: int | None, fewest_bytes: int) -> RawRows:
    """Read one file; a text file of `fewest_bytes` or more is parsed in each pass."""
    suffix = format_of(path)
    try:
        if not suffix:
            raise _unsupported(path)
        if suffix == ".parquet" or is_parquet(path):
            if fewest_bytes == 0 and is_compressed(path):
                raise _compressed_parquet(path)
            return read_parquet(path)
        if suffix in (".jsonl", ".ndjson") and _is_array(path):
            suffix = ".json"
        if limit is None and path.stat().st_size >= fewest_bytes:
            return _streamed(path, suffix)
        numbered = list(_READERS[suffix](path, limit, None))
        note = delimiter_note(path) if suffix == ".csv" else None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", str(path)) from error
    if not numbered:
        raise DataError("the file is empty", str(path))
    lines, rows = zip(*numbered, strict=True)
    unit = _unit(suffix)
    notes = () if note is None else (note,)
    return RawRows(str(path), _columns(rows), rows, lambda row: f"{path}:{unit}{lines[row]}", notes)


def _streamed(path: Path, suffix: str) -> RawRows:
    rows = StreamedRows(path, _READERS[suffix])
    if not rows.head:
        raise DataError("the file is empty", str(path))
    note = delimiter_note(path) if suffix == ".csv" else None
    return RawRows(
        str(path),
        _columns(rows.head),
        rows,
        lambda row: f"{path}:{_unit(suffix)}{rows.line(row)}",
        () if note is None else (note,),
    )


def _unit(suffix: str) -> str:
    return "row " if suffix == ".json" else ""


def _compressed_parquet(path: Path) -> DataError:
    return DataError(
        "cannot be streamed: a compressed Parquet file is decompressed in memory as a whole",
        str(path),
        "decompress it (Parquet compresses its columns itself), or set streaming: false",
    )


def _unsupported(path: Path) -> DataError:
    if path.is_dir():
        return DataError("is a folder", str(path), "name the folder alone, or its files")
    if path.suffix.lower() in (".zip", ".xlsx", ".xls", ".7z", ".tar", ".tgz", ".rar"):
        hint = "unpack it, save the rows as CSV, JSON Lines or Parquet, and name that file"
    elif is_compressed(path):
        hint = f"name the format before the compression, such as {path.stem}.jsonl{path.suffix}"
    else:
        hint = "save the rows in one of these formats"
    supported = ", ".join(FORMATS)
    return DataError(f"unsupported file type (supported: {supported})", str(path), hint)


def _is_array(path: Path) -> bool:
    return _ARRAY.match(read_bytes(path, 1000)) is not None


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for row in rows[:_COLUMN_ROWS] for column in row))


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _read_saved(path: Path, split: str, source: str) -> RawRows:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the saved data set is damaged: {error}", source) from error
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise DataError(f"there is no split {split}; found: {', '.join(saved)}", source)
        saved = saved[split]
    if not len(saved):
        raise DataError("the data set is empty", source)
    return RawRows(source, tuple(saved.column_names), saved, lambda row: f"{source}:row {row + 1}")
