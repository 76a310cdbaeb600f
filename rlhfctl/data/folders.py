"""Choice of the data files in a folder or behind a pattern."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.data import compression
from rlhfctl.errors import DataError, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
# `datasets` knows these splits by the same words in file names
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "state.json"})
_NAMES_SHOWN = 5


def format_of(path: Path) -> str:
    """Return the suffix of a file's format in lower case, without that of its compression.

    It is empty for a format that is not read.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in compression.SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ""


def files_of(path: Path, source: str, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of a source, and notes about files that are left out.

    Args:
        path: A file, a folder or a pattern.
        source: The source as given by the user.
        split: In a folder, the split whose files are wanted.

    Raises:
        DataError: There is no file, none of the split, or one file twice in two formats.
        UnsafeError: The folder contains a loading script and no data.
    """
    if exists(path):
        return files_in(path, split) if path.is_dir() else ([path], ())
    names = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    matches = [Path(name) for name in names if not _is_noise(Path(name).name)]
    if not matches:
        raise DataError("there is no such file", source, "paths start from the current folder")
    return matches, ()


def exists(path: Path) -> bool:
    """Return True for a path that exists; False for one that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def files_in(folder: Path, split: str) -> tuple[list[Path], tuple[str, ...]]:
    """Return the data files of a split in a folder, and notes about files that are left out.

    Hidden files and folders, backups and metadata are no data. Files that are named after the split
    are taken; without one, ``train`` takes all files that are not named after another split.

    Raises:
        DataError: There is no file, none of the split, or one file twice in two formats.
        UnsafeError: The folder contains a loading script and no data.
    """
    readable = sorted(file for file in folder.rglob("*") if file.is_file() and format_of(file))
    data_files = [
        file for file in readable if not any(map(_is_noise, file.relative_to(folder).parts))
    ]
    if not data_files:
        if any(folder.glob("*.py")):
            raise UnsafeError("the folder holds a script and no data files", str(folder))
        raise DataError(
            f"the folder holds no {', '.join(FORMATS)} file and no saved data set", str(folder)
        )
    chosen, notes = _of_split(data_files, folder, split)
    _refuse_copies(chosen)
    return chosen, notes


def _of_split(
    data_files: Sequence[Path], folder: Path, split: str
) -> tuple[list[Path], tuple[str, ...]]:
    named = [file for file in data_files if split in (file.name.split(".")[0], file.parent.name)]
    named = named or [file for file in data_files if file.name.startswith(split)]
    named = named or [file for file in data_files if _split_of(file, folder) == split]
    others = [file for file in data_files if _split_of(file, folder) not in (None, split)]
    if named:
        return named, ()
    unnamed = [file for file in data_files if file not in others]
    if split != "train" or not unnamed:
        raise DataError(
            f"no file of split {split}; the folder holds {_shown(data_files)}",
            str(folder),
            "set split, or name the file",
        )
    if not others:
        return unnamed, ()
    return unnamed, (f"files of other splits are left out: {_shown(others)}",)


def _split_of(file: Path, folder: Path) -> str | None:
    """Return the split that a word in a file's name or folders stands for."""
    words = re.split(r"[^a-z0-9]+", file.relative_to(folder).as_posix().lower())
    for split, names in _SPLIT_WORDS.items():
        if any(word in names for word in words):
            return split
    return None


def _refuse_copies(files: Sequence[Path]) -> None:
    """Refuse a file beside the same name in another format: its rows would count twice."""
    seen: dict[Path, Path] = {}
    for file in files:
        name = file.name.lower()
        for suffix in (*compression.SUFFIXES, format_of(file)):
            name = name.removesuffix(suffix)
        other = seen.setdefault(file.with_name(name), file)
        if other is not file:
            raise DataError(
                f"{other.name} and {file.name} are probably the same rows in two formats",
                str(file.parent),
                "name one of them, or remove the other",
            )


def _is_noise(name: str) -> bool:
    """Return True for hidden names, backups, archive leftovers and metadata."""
    return name.startswith((".", "~", "#", "__")) or name.endswith("~") or name.lower() in _METADATA


def _shown(files: Sequence[Path]) -> str:
    more = len(files) - _NAMES_SHOWN
    names = ", ".join(file.name for file in files[:_NAMES_SHOWN])
    return f"{names} and {more} more" if more > 0 else names
