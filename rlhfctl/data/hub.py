"""Data sets of the Hugging Face Hub, with the reasons that loading one can fail."""

from __future__ import annotations

import os
import re

from rlhfctl.data.raw import RawRows
from rlhfctl.errors import DataError, EnvironmentFault, RlhfctlError, UnsafeError

_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
_UNREACHABLE = frozenset(
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


def read_hub(source: str, config: str | None, split: str, revision: str | None) -> RawRows:
    """Load one split of a Hub data set, downloading it if it is not cached.

    Raises:
        DataError: The configuration or split does not exist, has no rows, or is unreadable.
        EnvironmentFault: The data set is not found or gated, or the Hub cannot be reached.
        UnsafeError: The data set is a loading script.
    """
    if not _ID.match(source):
        raise DataError("neither a file that exists nor the id of a Hub data set", source)
    from datasets import Dataset, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        loaded = load_dataset(source, config, split=split, revision=revision)
    except DatasetNotFoundError as error:
        raise _not_found(source, error) from error
    except Exception as error:
        fault = _fault(source, config, split, error)
        if fault is None:
            raise
        raise fault from error
    if not isinstance(loaded, Dataset) or not len(loaded):
        raise DataError(f"split {split} is empty", source)
    return RawRows(
        source, tuple(loaded.column_names), loaded, lambda row: f"{source}:row {row + 1}"
    )


def _not_found(source: str, error: Exception) -> EnvironmentFault:
    if "gated" in str(error):
        return EnvironmentFault(
            "the Hub data set is gated",
            source,
            "request access on the data set's page, then run `hf auth login`",
        )
    if offline():
        return _unreachable(source, "HF_HUB_OFFLINE is set and the data set is not in the cache")
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
    if names & _UNREACHABLE or "Couldn't reach" in message:
        reason = "HF_HUB_OFFLINE is set" if offline() else "the Hub cannot be reached"
        return _unreachable(source, f"{reason}, and the data set is not in the cache")
    if "BuilderConfig" in message or "Config name is missing" in message:
        return DataError(f"no configuration {config}: {message[:300]}", source, "set config")
    if "Unknown split" in message or "Bad split" in message:
        return DataError(f"no split {split}: {message[:300]}", source, "set split")
    if "DatasetGenerationError" in names or "DataFilesNotFoundError" in names:
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
