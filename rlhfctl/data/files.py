"""Rows of local files: JSON, JSON Lines, CSV, Parquet, a folder of them, or a saved data set.

Text files are parsed here instead of by `datasets`, which does not report the line of a syntax
error, reads the CSV cell ``NA`` as missing, and converts a column of mixed types.
"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.data.raw import RawRows
from rlhfctl.data.text_files import read_csv, read_json, read_json_lines
from rlhfctl.errors import DataError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_READERS: dict[str, Callable[[Path, int | None], Iterable[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
}
_SUFFIXES = (*_READERS, ".parquet")
_COLUMN_ROWS = 1000


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
        _exists(path)
        or source.startswith(("/", ".", "~"))
        or source.count("/") > 1
        or any(mark in source for mark in "*?[\\")
        or _suffix(path) != ""
    )


def read_local(source: str, split: str, limit: int | None = None) -> RawRows:
    """Read a file, the files that a pattern matches, a folder of files, or a saved data set.

    Args:
        source: The path or pattern; relative ones start from the current folder.
        split: Split of a saved data set; in a folder, selects the files whose names start with it.
        limit: Maximum number of rows read per file; None reads all.

    Raises:
        DataError: The file is missing, damaged, or of an unsupported type; names file and line.
        UnsafeError: A folder contains a loading script and no data.
    """
    path = Path(source).expanduser()
    if _exists(path) and _is_saved(path):
        return _read_saved(path, split, source)
    files = _files(path, source, split)
    parts = [_read_file(file, limit) for file in files]
    return parts[0] if len(parts) == 1 else _joined(source, parts)


def _files(path: Path, source: str, split: str) -> list[Path]:
    if _exists(path):
        return _files_in(path, split) if path.is_dir() else [path]
    matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not matches:
        raise DataError("there is no such file", source, "paths start from the current folder")
    return matches


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def _files_in(folder: Path, split: str) -> list[Path]:
    data_files = sorted(file for file in folder.rglob("*") if file.is_file() and _suffix(file))
    if not data_files:
        if any(folder.glob("*.py")):
            raise UnsafeError("the folder holds a script and no data files", str(folder))
        raise DataError(
            f"the folder holds no {', '.join(_SUFFIXES)} file and no saved data set", str(folder)
        )
    named = [file for file in data_files if split in (file.name.split(".")[0], file.parent.name)]
    named = named or [file for file in data_files if file.name.startswith(split)]
    if named or split == "train":
        return named or data_files
    names = ", ".join(file.name for file in data_files[:5])
    raise DataError(f"no file of split {split}; the folder holds {names}", str(folder))


def _suffix(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return suffix if suffix in _SUFFIXES else ""


def _read_file(path: Path, limit: int | None) -> RawRows:
    suffix = _suffix(path)
    if not suffix:
        supported = ", ".join(_SUFFIXES)
        raise DataError(f"unsupported file type (supported: {supported})", str(path))
    try:
        if suffix == ".parquet":
            return _read_parquet(path)
        numbered = list(_READERS[suffix](path, limit))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", str(path)) from error
    if not numbered:
        raise DataError("the file is empty", str(path))
    lines, rows = zip(*numbered, strict=True)
    unit = "row " if suffix == ".json" else ""
    return RawRows(str(path), _columns(rows), rows, lambda row: f"{path}:{unit}{lines[row]}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for row in rows[:_COLUMN_ROWS] for column in row))


def _read_parquet(path: Path) -> RawRows:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    try:
        table = pq.read_table(path, memory_map=True)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"damaged, or not a Parquet file: {reason}", str(path)) from error
    if not table.num_rows:
        raise DataError("the file has no rows", str(path))
    rows = Dataset(table)
    return RawRows(str(path), tuple(rows.column_names), rows, lambda row: f"{path}:row {row + 1}")


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


def _joined(source: str, parts: list[RawRows]) -> RawRows:
    """Concatenate the rows of several files."""
    columns = tuple(dict.fromkeys(column for part in parts for column in part.columns))
    origin = [(part, row) for part in parts for row in range(len(part.rows))]
    rows = [row for part in parts for row in part.rows]

    def place(row: int) -> str:
        part, number = origin[row]
        return part.place(number)

    return RawRows(source, columns, rows, place)
