"""Data sets of the Hugging Face hub, and what keeps one from being had."""

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
    """Load one split of a hub data set, downloading it unless it is in the cache.

    Raises:
        DataError: It has no such configuration or split, no rows, or cannot be read.
        EnvironmentFault: It is not found, needs permission, or the hub cannot be reached.
        UnsafeError: It is a script.
    """
    if not _ID.match(source):
        raise DataError("neither a file that exists nor a hub data set's id", source)
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
            "the hub data set needs its authors' permission",
            source,
            "ask for it on the data set's page, then `hf auth login`",
        )
    if offline():
        return _unreachable(source, "HF_HUB_OFFLINE is set and the data set is not in the cache")
    return EnvironmentFault(
        "no such data set on the hub, and no such file here",
        source,
        "check the id, `hf auth login` if it is private, or name a local file",
    )


def _fault(source: str, config: str | None, split: str, error: Exception) -> RlhfctlError | None:
    """Return what a failed load means to the user; None when it means a bug."""
    said = " ".join(str(error).split())
    names = {cause.__name__ for cause in type(error).__mro__}
    if "scripts are no longer supported" in said:
        return UnsafeError(
            "the data set is a script, which would run its code here",
            source,
            "use a revision or a copy that holds data files (such as refs/convert/parquet)",
        )
    if names & _UNREACHABLE or "Couldn't reach" in said:
        reason = "HF_HUB_OFFLINE is set" if offline() else "the hub cannot be reached"
        return _unreachable(source, f"{reason}, and the data set is not in the cache")
    if "BuilderConfig" in said or "Config name is missing" in said:
        return DataError(f"no configuration {config}: {said[:300]}", source, "set config")
    if "Unknown split" in said or "Bad split" in said:
        return DataError(f"no split {split}: {said[:300]}", source, "set split")
    if "DatasetGenerationError" in names or "DataFilesNotFoundError" in names:
        return DataError(f"cannot be read: {said[:300]}", source)
    return None


def _unreachable(source: str, reason: str) -> EnvironmentFault:
    return EnvironmentFault(
        reason,
        source,
        "connect, unset HF_HUB_OFFLINE, or name a local file or a saved copy of the data set",
    )


def offline() -> bool:
    """Say whether the user has forbidden the hub libraries to use the network."""
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)
