"""Data sets of the Hugging Face Hub, with the reasons that loading one can fail."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.data.raw import RawRows
from rlhfctl.errors import DataError, EnvironmentFault, RlhfctlError, UnsafeError
from rlhfctl.hub_commits import note_loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset

_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
UNREACHABLE = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "ConnectionError",
        "HTTPError",
        "HfHubHTTPError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ReadTimeout",
        "RequestException",
        "TransportError",
    }
)
"""Names of the classes, or their bases, of a request that got no answer."""


def require_hub_id(source: str) -> None:
    """Check that a source can be the id of a Hub data set.

    Raises:
        DataError: It cannot.
    """
    if not _ID.match(source):
        raise DataError("neither a file that exists nor the id of a Hub data set", source)


def read_hub(source: str, config: str | None, split: str, revision: str | None) -> RawRows:
    """Load one split of a Hub data set, downloading it if it is not cached.

    Raises:
        DataError: The configuration or split does not exist, has no rows, or is unreadable.
        EnvironmentFault: The data set is not found or gated, or the Hub cannot be reached.
        UnsafeError: The data set is a loading script.
    """
    require_hub_id(source)
    from datasets import Dataset, load_dataset

    with load_errors(source, config, split, revision):
        loaded = load_dataset(source, config, split=split, revision=revision)
    if not isinstance(loaded, Dataset) or not len(loaded):
        raise DataError(f"split {split} is empty", source)
    commit = cached_commit(loaded)
    require_commit(commit, source, revision)
    note_loaded("dataset", source, revision, commit)
    return RawRows(
        source, tuple(loaded.column_names), loaded, lambda row: f"{source}:row {row + 1}"
    )


def is_commit(revision: str) -> bool:
    """Return whether a revision is a commit, which never moves, and no branch or tag."""
    return _COMMIT.match(revision) is not None


def cached_commit(loaded: Dataset) -> str | None:
    """Return the commit that rows of `read_hub` are of; None if datasets' cache does not tell."""
    files = loaded.cache_files
    name = Path(files[0]["filename"]).parent.name if files else ""
    return name if is_commit(name) else None


def require_commit(cached: str | None, source: str, revision: str | None) -> None:
    """Refuse rows of another commit: without the Hub, datasets takes the newest that is cached.

    What a branch or tag was cannot be told without the Hub.

    Raises:
        EnvironmentFault: The rows are of another commit than the recipe's.
    """
    if revision is None or cached is None or not (is_commit(revision) and is_commit(cached)):
        return
    if cached != revision:
        raise _unreachable(
            f"{source} at {revision}", f"the Hub was not asked, and the cache has commit {cached}"
        )


@contextmanager
def load_errors(
    source: str, config: str | None, split: str, revision: str | None
) -> Iterator[None]:
    """Convert exceptions of the datasets library to errors about a Hub data set.

    Raises:
        DataError: The configuration or split does not exist, or is unreadable.
        EnvironmentFault: The data set is not found or gated, or the Hub cannot be reached.
        UnsafeError: The data set is a loading script.
    """
    from datasets.exceptions import DatasetNotFoundError

    try:
        yield
    except DatasetNotFoundError as error:
        raise _not_found(source, revision, error) from error
    except Exception as error:
        fault = _fault(source, config, split, error)
        if fault is None:
            raise
        raise fault from error


def _not_found(source: str, revision: str | None, error: Exception) -> EnvironmentFault:
    if "gated" in str(error):
        return EnvironmentFault(
            "the Hub data set is gated",
            source,
            "request access on the data set's page, then run `hf auth login`",
        )
    if offline():
        return _unreachable(source, "HF_HUB_OFFLINE is set and the data set is not in the cache")
    if revision is not None and str(error).startswith("Revision"):
        return EnvironmentFault(
            f"the Hub data set has no revision {revision}",
            source,
            "name one of its branches, tags or commits, or leave revision out",
        )
    return EnvironmentFault(
        "no such data set on the Hub, and no such local file",
        source,
        "check the id, run `hf auth login` if it is private, or name a local file",
    )


def _fault(source: str, config: str | None, split: str, error: Exception) -> RlhfctlError | None:
    """Return the user error behind a failed load, or None for an unexpected failure."""
    message = " ".join(str(error).split())
    names = {cause.__name__ for cause in type(error).__mro__}
    if "scripts are no longer supported" in message:
        return UnsafeError(
            "the data set is a loading script, which would run its code on this machine",
            source,
            "use a revision or copy with data files (such as refs/convert/parquet)",
        )
    if names & UNREACHABLE or "Couldn't reach" in message or "Couldn't find cache" in message:
        reason = "HF_HUB_OFFLINE is set" if offline() else "the Hub cannot be reached"
        return _unreachable(source, f"{reason}, and the data set is not in the cache")
    if "BuilderConfig" in message or "Config name is missing" in message:
        return DataError(f"no configuration {config}: {message[:300]}", source, "set config")
    if "Unknown split" in message or "Bad split" in message:
        return DataError(f"no split {split}: {message[:300]}", source, "set split")
    # The reader of JSON raises a plain ValueError.
    if names & {"DatasetGenerationError", "DataFilesNotFoundError", "ValueError"}:
        return DataError(f"cannot be read: {message[:300]}", source)
    return None


def _unreachable(source: str, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        reason,
        source,
        "connect, unset HF_HUB_OFFLINE, or name a local file or a saved copy of the data set",
    )


def offline() -> bool:
    """Return True if an environment variable sets the Hub libraries offline."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
