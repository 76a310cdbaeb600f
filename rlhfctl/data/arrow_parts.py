"""Tables written batch by batch to Arrow files, and opened as one memory-mapped data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from datasets import Dataset


class CannotStoreError(Exception):
    """The files cannot be written; the message is the operating system's reason."""


class PartWriter:
    """Writer of tables, which may differ in their columns' types.

    Tables of one schema follow each other in one file; another schema begins the next file. A type
    that one batch does not show, such as that of a column of None, is thus no conflict until
    `opened` aligns the files.

    Args:
        folder: Folder of the files; None holds the tables in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._tables: list[Any] = []
        self._writer: Any = None
        self._schema: Any = None
        self.names: list[str] = []

    def add(self, table: Any) -> None:
        """Append the rows of a pyarrow table that a data set has.

        Raises:
            CannotStoreError: The file cannot be written.
        """
        if self._folder is None:
            self._tables.append(table)
            return
        try:
            if self._schema is None or not table.schema.equals(self._schema, check_metadata=True):
                self._next(self._folder, table.schema)
            self._writer.write_table(table)
        except OSError as error:
            raise CannotStoreError(error.strerror or str(error)) from error

    def close(self) -> None:
        """Finish the last file.

        Raises:
            CannotStoreError: It cannot be written.
        """
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            raise CannotStoreError(error.strerror or str(error)) from error
        self._writer = self._schema = None

    def in_memory(self) -> Dataset:
        """Return the rows, if there is no folder."""
        from datasets import Dataset

        return joined([Dataset(table) for table in self._tables])

    def _next(self, folder: Path, schema: Any) -> None:
        import pyarrow as pa

        self.close()
        name = f"part-{len(self.names):05d}.arrow"
        self._writer = pa.ipc.new_stream(str(folder / name), schema)
        self._schema = schema
        self.names.append(name)


def opened(paths: Sequence[Path]) -> Dataset:
    """Return the rows of the files of a `PartWriter`, memory-mapped.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: A file is missing or damaged.
    """
    from datasets import Dataset

    return joined([Dataset.from_file(str(path)) for path in paths])


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Return the rows of several data sets, whose types are aligned."""
    from datasets import Dataset, concatenate_datasets

    return concatenate_datasets(list(parts)) if parts else Dataset.from_list([])
