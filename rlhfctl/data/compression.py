"""Opening of data files: compression is recognised by content, not by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from typing import IO, TYPE_CHECKING, cast

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")
"""Suffixes that a compressed file may have after that of its format."""

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_REFUSED = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
_PARQUET = b"PAR1"
_BLOCK = 1 << 20
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError, ValueError)
_DAMAGED = "the compressed file is damaged"


def open_data(path: Path, raw: IO[bytes] | None = None) -> IO[bytes]:
    """Open a file for reading, decompressing gzip, bzip2, xz and zstd.

    Args:
        path: The file.
        raw: The file opened for reading, whose position then tells how much was read.

    Raises:
        DataError: The file is an archive or has another compression.
        OSError: The file cannot be read.
    """
    start = _first_bytes(path)
    for mark, name in _REFUSED.items():
        if start.startswith(mark):
            raise DataError(
                f"the file is {name} by its content",
                str(path),
                "unpack it, save the rows as CSV, JSON Lines or Parquet, and name that file",
            )
    if start.startswith(_GZIP):
        return cast("IO[bytes]", gzip.open(raw or path))
    if start.startswith(_BZIP2):
        return cast("IO[bytes]", bz2.open(raw or path))
    if start.startswith(_XZ):
        return cast("IO[bytes]", lzma.open(raw or path))
    if start.startswith(_ZSTD):
        import io

        import pyarrow as pa

        # pyarrow's stream has no lines of its own
        source = pa.OSFile(str(path)) if raw is None else pa.PythonFile(raw, "r")
        return io.BufferedReader(pa.CompressedInputStream(source, "zstd"))
    return raw or path.open("rb")


def is_compressed(path: Path) -> bool:
    """Return True for a file that `open_data` decompresses.

    Raises:
        OSError: The file cannot be read.
    """
    return _first_bytes(path).startswith((_GZIP, _BZIP2, _XZ, _ZSTD))


def is_parquet(path: Path) -> bool:
    """Return True for a file that is Parquet by its content.

    Raises:
        OSError: The file cannot be read.
    """
    return _first_bytes(path).startswith(_PARQUET)


def lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Yield line numbers and lines with their endings: "\n", "\r\n" or "\r".

    Raises:
        DataError: The compressed file is damaged; names the line.
    """
    number = 0
    try:
        for block in stream:
            for line in block.splitlines(keepends=True):
                number += 1
                yield number, line
    except _DAMAGE as error:
        if not is_compressed(path):
            raise
        raise DataError(f"{_DAMAGED}: {error}", f"{path}:{number + 1}") from error


def blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks.

    Raises:
        DataError: The compressed file is damaged; names the line.
    """
    line = 1
    try:
        while block := stream.read(_BLOCK):
            yield block
            line += block.count(b"\n")
    except _DAMAGE as error:
        if not is_compressed(path):
            raise
        raise DataError(f"{_DAMAGED}: {error}", f"{path}:{line}") from error


def read_bytes(path: Path, count: int = -1) -> bytes:
    """Return the first bytes of a file, or all, decompressed.

    Raises:
        DataError: The compressed file is damaged, or the file is an archive.
        OSError: The file cannot be read.
    """
    try:
        with open_data(path) as stream:
            return stream.read(count)
    except _DAMAGE as error:
        if not is_compressed(path):
            raise
        raise DataError(f"{_DAMAGED}: {error}", f"{path}:1") from error


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)
