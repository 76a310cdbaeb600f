"""Rows of a Hub data set that are read from the Hub in each pass, without a download of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.data.hub import is_commit, load_errors, require_commit, require_hub_id
from rlhfctl.data.raw import RawRows
from rlhfctl.data.streamed_rows import RowStream
from rlhfctl.errors import DataError
from rlhfctl.hub_commits import note_loaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True)
class HubSplit:
    """A split of a data set on the Hub.

    Attributes:
        source: Id of the data set.
        config: Its configuration; None: the default.
        split: Name of the split.
        revision: Branch, tag or commit; None: the default branch.
    """

    source: str
    config: str | None
    split: str
    revision: str | None

    def opened(self) -> tuple[Any, str, int | None]:
        """Ask the Hub for the files of the split.

        Returns:
            The rows as datasets streams them, the commit that they are of, and their number where
            the data set's page says it.

        Raises:
            DataError: The configuration or split does not exist, or is unreadable.
            EnvironmentFault: The data set is not found or gated, or the Hub cannot be reached.
            UnsafeError: The data set is a loading script.
        """
        require_hub_id(self.source)
        from datasets import load_dataset_builder

        with load_errors(self.source, self.config, self.split, self.revision):
            builder: Any = load_dataset_builder(self.source, self.config, revision=self.revision)
            stream = builder.as_streaming_dataset(split=self.split)
        require_commit(str(builder.hash), self.source, self.revision)
        note_loaded("dataset", self.source, self.revision, str(builder.hash))
        info = (builder.info.splits or {}).get(self.split)
        return stream, str(builder.hash), (info.num_examples or None) if info else None

    def commit(self) -> str:
        """Return the commit that the rows are of; the Hub is not asked if the recipe names it.

        Raises:
            DataError, EnvironmentFault, UnsafeError: As `opened`.
        """
        if self.revision is not None and is_commit(self.revision):
            note_loaded("dataset", self.source, self.revision, self.revision)
            return self.revision
        return self.opened()[1]


class HubRows(RowStream):
    """Rows of a split.

    Args:
        split: The split.
        stream: Its rows, as datasets streams them.
        total: Their number, if it is known.
    """

    def __init__(self, split: HubSplit, stream: Any, total: int | None) -> None:
        self._split = split
        self._stream = stream
        self._total = total

    def _pass(self) -> Iterator[Mapping[str, Any]]:
        split = self._split
        with load_errors(split.source, split.config, split.split, split.revision):
            yield from self._stream

    def share_read(self) -> float:
        """Return the share of the rows that the current pass has read; 0 if none knows it."""
        return min(1.0, self._reached / self._total) if self._total else 0.0

    def select_columns(self, names: Sequence[str]) -> HubRows:
        """Return the rows with some columns, or with all where the Hub does not say which exist."""
        if self._stream.features is None:
            return self
        return HubRows(self._split, self._stream.select_columns(list(names)), self._total)


def stream_hub(split: HubSplit) -> RawRows:
    """Return the rows of a split, which each pass reads from the Hub.

    Raises:
        DataError: The configuration or split does not exist, has no rows, or is unreadable.
        EnvironmentFault: The data set is not found or gated, or the Hub cannot be reached.
        UnsafeError: The data set is a loading script.
    """
    stream, _, total = split.opened()
    rows = HubRows(split, stream, total)
    if not rows.head:
        raise DataError(f"split {split.split} is empty", split.source)
    names = stream.column_names or [column for row in rows.head for column in row]
    return RawRows(
        split.source,
        tuple(dict.fromkeys(names)),
        rows,
        lambda row: f"{split.source}:row {row + 1}",
    )
