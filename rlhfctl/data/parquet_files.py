"""Rows of Parquet files: only the columns that are read are loaded, and any type of others is fine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from rlhfctl.data.compression import is_compressed, read_bytes
from rlhfctl.data.raw import RawRows
from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_BATCH = 1000


class ParquetRows(Sequence["Mapping[str, Any]"]):
    """Rows of one file as Python values, loaded when the first one is needed.

    Args:
        path: The file, compressed or not.
        columns: Columns to load; None loads all.
        numbers: Rows to take, in order; None takes all.
    """

    def __init__(
        self, path: Path, columns: list[str] | None = None, numbers: Sequence[int] | None = None
    ) -> None:
        self._path = path
        self._columns = columns
        self._numbers = numbers

    @cached_property
    def _file(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._reading(may_be_missing=True):
            if is_compressed(self._path):
                return pq.ParquetFile(pa.BufferReader(read_bytes(self._path)))
            return pq.ParquetFile(self._path, memory_map=True)

    @cached_property
    def _table(self) -> Any:
        with self._reading():
            table = self._file.read(columns=self._columns)
        return table if self._numbers is None else table.take(list(self._numbers))

    @contextmanager
    def _reading(self, *, may_be_missing: bool = False) -> Iterator[None]:
        """Raise what pyarrow says of a damaged file as an error of the data.

        Args:
            may_be_missing: Whether an OSError says so, and is raised as it is.
        """
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise self._damaged(error) from error
        except OSError as error:
            if may_be_missing:
                raise
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DataError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return DataError(f"damaged, or not a Parquet file: {reason}", str(self._path))

    @property
    def column_names(self) -> list[str]:
        """Columns of the rows.

        Raises:
            DataError: The file is damaged.
        """
        if self._columns is not None:
            return self._columns
        with self._reading():
            return list(self._file.schema_arrow.names)

    def __len__(self) -> int:
        if self._numbers is not None:
            return len(self._numbers)
        count = int(self._file.metadata.num_rows)
        if count < 0:
            raise self._damaged(ValueError(f"{count} rows"))
        return count

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        with self._reading():
            if isinstance(row, slice):
                rows = range(len(self))[row]
                return self._table.take(list(rows)).to_pylist()
            return self._table.slice(range(len(self))[row], 1).to_pylist()[0]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for batch in self._batches():
            with self._reading():
                rows = batch.to_pylist()
            yield from rows

    def _batches(self) -> Iterator[Any]:
        if self._numbers is not None or "_table" in self.__dict__:
            yield from self._table.to_batches(max_chunksize=_BATCH)
            return
        # One row group at a time, so that a large file is never in memory as a whole.
        batches = self._file.iter_batches(batch_size=_BATCH, columns=self._columns)
        while True:
            with self._reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def select(self, numbers: Sequence[int]) -> ParquetRows:
        """Return some of the rows."""
        if self._numbers is not None:
            numbers = [self._numbers[number] for number in numbers]
        return ParquetRows(self._path, self._columns, numbers)

    def select_columns(self, names: Sequence[str]) -> ParquetRows:
        """Return the rows with some columns."""
        return ParquetRows(self._path, list(names), self._numbers)


def read_parquet(path: Path) -> RawRows:
    """Return the rows of a Parquet file.

    Raises:
        DataError: The file is damaged or has no rows.
        OSError: The file cannot be read.
    """
    rows = ParquetRows(path)
    if not len(rows):
        raise DataError("the file has no rows", str(path))
    return RawRows(str(path), tuple(rows.column_names), rows, lambda row: f"{path}:row {row + 1}")
