"""The processes of one command, where accelerate or torchrun has started several.

Process 0 decides, writes and shows; the others work at its word. Words go through the key-value
store that the launcher or process 0 keeps at MASTER_ADDR, so that waiting for one, however long,
is no collective that could time out, and a signal is heard meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import LostProcessFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LONGEST_COLLECTIVE = timedelta(days=7)
"""A process may evaluate or normalize_scores alone for long; whoever dies is found by the launcher."""
_POLL = 0.05  # seconds
_MEGATRON = "ACCELERATE_USE_MEGATRON_LM"
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_ACCELERATE_FSDP = "ACCELERATE_USE_FSDP"
_FSDP = "RLHFCTL_USE_FSDP"
"""Set where the launcher's configuration asks for FSDP; accelerate's own variable is removed."""
_FAILURE = "rlhfctl/failure"


class ProcessGroup:
    """This process among its peers; alone where there are none.

    Attributes:
        rank: This process's number.
        count: How many processes there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        """Take this process's number; `join` makes the connection."""
        self.rank = rank
        self.count = count
        self._store: Any = None
        self._instructions = 0

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """Return the group that the launcher's variables RANK and WORLD_SIZE tell of."""
        if "LOCAL_RANK" not in os.environ:
            return cls()
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_main(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    @property
    def joined(self) -> bool:
        """Whether there are others, and they can be told things."""
        return self._store is not None

    def join(self) -> None:
        """Connect to the other processes, where there are any.

        Raises:
            RuntimeError: They cannot be reached.
        """
        if self.count == 1 or self._store is not None:
            return
        join_processes()
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(address, port, is_master=False, wait_for_workers=False)

    def broadcast(self, word: Mapping[str, Any]) -> None:
        """Give all other processes a word, by process 0; they read words in order."""
        if self._store is not None:
            self._store.set(f"rlhfctl/instruction/{self._instructions}", json.dumps(dict(word)))
            self._instructions += 1

    def shutdown(self) -> None:
        """Tell the other processes that there is nothing more to do."""
        self.broadcast({})

    def instructions(self) -> Iterator[dict[str, Any]]:
        """Yield the words of process 0 until it dismisses this process.

        Raises:
            LostProcessFault: Process 0 failed or can no longer be reached.
        """
        while True:
            word: dict[str, Any] = json.loads(
                self._await(f"rlhfctl/instruction/{self._instructions}")
            )
            self._instructions += 1
            if not word:
                return
            yield word

    def finished(self) -> None:
        """Tell process 0 that this one has done what the last word asked for."""
        if self._store is not None:
            self._store.add(f"rlhfctl/finished/{self._instructions}", 1)

    def await_others(self) -> None:
        """Go on, as process 0, when every other process has finished the last word.

        Raises:
            LostProcessFault: One of them failed.
        """
        if self._store is None:
            return
        while self._store.add(f"rlhfctl/finished/{self._instructions}", 0) < self.count - 1:
            self._check_alive()
            time.sleep(_POLL)

    def first_failure(self, word: Mapping[str, Any]) -> dict[str, Any]:
        """Tell the others why this process ends; return the first such word of any process.

        What follows from a failure elsewhere, such as a lost connection, comes after its cause.
        """
        mine = {"rank": self.rank, **word}
        if self._store is None:
            return mine
        try:
            first = self._store.compare_set(_FAILURE, "", json.dumps(mine))
        except RuntimeError:  # the store went down with the process that kept it
            return mine
        found: dict[str, Any] = json.loads(first)
        return found

    def _await(self, key: str) -> bytes:
        # Not by the store's own waiting, which neither hears signals nor times out in silence.
        try:
            while not self._store.check([key]):
                self._check_alive()
                time.sleep(_POLL)
            value: bytes = self._store.get(key)
        except RuntimeError as error:
            raise LostProcessFault("process 0 can no longer be reached") from error
        return value

    def _check_alive(self) -> None:
        if self._store.check([_FAILURE]):
            raise LostProcessFault("another process failed")


def refuse_sharding(stages: Sequence[str]) -> None:
    """Refuse to train under a launcher's configuration for Megatron-LM or DeepSpeed.

    Under such a wrapper a stage would run wrongly or end in the library's own error. FSDP is allowed:
    every stage shards its frozen base by FSDP2 itself.

    Args:
        stages: Those about to run; `eval` is process 0's alone and needs no wrapper.

    Raises:
        UsageError: There is such a configuration, and a stage that trains and cannot run under it.
    """
    training = [stage for stage in stages if stage != "eval"]
    if training and os.environ.get(_MEGATRON, "").lower() == "true":
        raise UsageError(
            f"{', '.join(training)} cannot run under Megatron-LM: rlhfctl keeps a whole model in "
            "every process there",
            hint="use recipes/launch/ddp.yaml; model.quantization=4bit makes the model smaller, "
            "and recipes/launch/fsdp2.yaml shards its frozen base",
        )
    if training and os.environ.get(_DEEPSPEED, "").lower() == "true":
        raise no_deepspeed()


def no_deepspeed(where: str = "") -> UsageError:
    """Return the error for a launcher's configuration that asks for DeepSpeed.

    Args:
        where: The command-line option that names the configuration.
    """
    return UsageError(
        "DeepSpeed is not supported", where, "Use recipes/launch/fsdp2.yaml to shard the base."
    )


def join_processes() -> Any:
    """Return accelerate's state of this process, connected to its peers where there are any.

    On machines without a GPU the processes talk by gloo; accelerate must be told so, or each would
    take itself for the only one. Nor may the libraries see that FSDP is requested:
    accelerate would shard trained weights too, and on a GPU alone; transformers would leave the
    weights of a new head unmade in every process but the first.
    """
    if os.environ.pop(_ACCELERATE_FSDP, "").lower() == "true":
        os.environ[_FSDP] = "true"
    import torch
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs

    if "LOCAL_RANK" not in os.environ:
        return PartialState()
    options = InitProcessGroupKwargs(timeout=_LONGEST_COLLECTIVE).to_kwargs()
    return PartialState(cpu=not torch.cuda.is_available(), **options)
