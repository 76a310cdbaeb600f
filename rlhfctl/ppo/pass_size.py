"""Number of rows per forward pass, which may be halved where memory runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from accelerate.utils.memory import find_executable_batch_size

from rlhfctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.ppo.processes import Processes

T = TypeVar("T")


class PassSize:
    """Rows per forward pass; with `auto_batch`, halved until a piece of work fits into memory.

    Attributes:
        rows: Rows per pass.
    """

    def __init__(
        self, rows: int, *, automatic: bool = False, say: Callable[[str], None] = print
    ) -> None:
        """Store the size, whether it may change, and who hears that it did."""
        self.rows = rows
        self.automatic = automatic
        self.say = say

    def run(self, work: Callable[[int], T]) -> T:
        """Return the result of work that takes the number of rows per pass.

        Args:
            work: Must leave nothing behind when it fails.

        Raises:
            RuntimeError: torch's own, if memory runs out with one row, or without `auto_batch`.
        """
        if not self.automatic:
            return work(self.rows)
        attempt = find_executable_batch_size(work, self.rows, reduce_batch_size_fn=self._halve)
        result: T = attempt()
        return result

    def _halve(self) -> int:
        if self.rows == 1:
            raise  # noqa: PLE0704 - within the library's handler of the error of one row
        before, self.rows = self.rows, self.rows // 2
        self.say(
            f"out of memory with {before} rows per forward pass; going on with {self.rows} "
            "(auto_batch); rows per optimizer step stay the same"
        )
        return self.rows


def require_single_process(processes: Processes) -> None:
    """Refuse `auto_batch` with several processes, which would have to agree on every size.

    Raises:
        UsageError: There are several.
    """
    if processes.count > 1:
        raise UsageError(
            f"auto_batch works in one process, and there are {processes.count}",
            "auto_batch",
            "Leave it out, and set per_device_train_batch_size and ppo.forward_batch_size by hand.",
        )
