"""Communication between the processes of a command started by accelerate or torchrun.

Process 0 plans the work and writes all output; the others follow its instructions. Instructions
are sent through the key-value store of the launcher or process 0 at MASTER_ADDR. Waiting for one
is not a collective: it cannot time out, and signals are handled meanwhile.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import LostProcessFault, UsageError
from rlhfctl.json_text import parse_json
from rlhfctl.run.connection import connect_together
from rlhfctl.stage_table import stage_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LONGEST_COLLECTIVE = timedelta(days=7)
"""One process may work alone for hours; the launcher detects dead processes."""
_POLL = 0.05  # seconds
_MEGATRON = "ACCELERATE_USE_MEGATRON_LM"
_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"
_ACCELERATE_FSDP = "ACCELERATE_USE_FSDP"
_FSDP = "RLHFCTL_USE_FSDP"
"""Set if the launcher's configuration requests FSDP; accelerate's own variable is removed."""
_FAILURE = "rlhfctl/failure"


class ProcessGroup:
    """This process and its peers.

    Attributes:
        rank: Rank of this process.
        count: Number of processes.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        """Create the group without connecting; `join` connects."""
        self.rank = rank
        self.count = count
        self._store: Any = None
        self._instructions = 0

    @classmethod
    def from_environment(cls) -> ProcessGroup:
        """Return the group defined by the launcher's variables RANK and WORLD_SIZE."""
        if "LOCAL_RANK" not in os.environ:
            return cls()
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def is_main(self) -> bool:
        """Return whether this is process 0."""
        return self.rank == 0

    @property
    def joined(self) -> bool:
        """Return whether this process is connected to others."""
        return self._store is not None

    def join(self) -> None:
        """Connect to the other processes, if any.

        Raises:
            LostProcessFault: Another process was stopped before all were connected.
            RuntimeError: The processes are unreachable.
            Stopped: This process received a signal to stop.
        """
        if self.count == 1 or self._store is not None:
            return
        connect_together(join_processes, self.rank, self.count)
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._store = TCPStore(address, port, is_master=False, wait_for_workers=False)

    def broadcast(self, instruction: Mapping[str, Any]) -> None:
        """Send an instruction from process 0 to all others, in order."""
        if self._store is not None:
            key = f"rlhfctl/instruction/{self._instructions}"
            self._store.set(key, json.dumps(dict(instruction)))
            self._instructions += 1

    def shutdown(self) -> None:
        """End `instructions` in the other processes."""
        self.broadcast({})

    def instructions(self) -> Iterator[dict[str, Any]]:
        """Yield the instructions of process 0 until it shuts the group down.

        Raises:
            LostProcessFault: Process 0 failed or can no longer be reached.
        """
        while True:
            key = f"rlhfctl/instruction/{self._instructions}"
            instruction: dict[str, Any] = parse_json(self._await(key))
            self._instructions += 1
            if not instruction:
                return
            yield instruction

    def finished(self) -> None:
        """Report to process 0 that the last instruction is complete."""
        if self._store is not None:
            self._store.add(f"rlhfctl/finished/{self._instructions}", 1)

    def await_others(self) -> None:
        """Wait in process 0 until every other process has finished the last instruction.

        Raises:
            LostProcessFault: A process failed.
        """
        if self._store is None:
            return
        while self._store.add(f"rlhfctl/finished/{self._instructions}", 0) < self.count - 1:
            self._check_alive()
            time.sleep(_POLL)

    def first_failure(self, failure: Mapping[str, Any]) -> dict[str, Any]:
        """Publish the failure of this process; return the first failure that any process published.

        The cause is published before its consequences elsewhere, such as a lost connection.
        """
        own = {"rank": self.rank, **failure}
        if self._store is None:
            return own
        try:
            published = self._store.compare_set(_FAILURE, "", json.dumps(own))
        except RuntimeError:  # the process that held the store is gone
            return own
        first: dict[str, Any] = parse_json(published)
        return first

    def _await(self, key: str) -> bytes:
        # The store's own `wait` blocks signals and raises when it times out.
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
    """Reject training under a launcher's configuration for Megatron-LM or DeepSpeed.

    Such a wrapper would give wrong results or fail inside the library. FSDP is allowed: every
    stage shards its frozen base model itself, by FSDP2.

    Args:
        stages: Names of the stages to run; stages that run in process 0 only are unaffected.

    Raises:
        UsageError: The configuration requests one of them, and a stage would train.
    """
    training = [stage for stage in stages if not stage_named(stage).main_process_only]
    if training and os.environ.get(_MEGATRON, "").lower() == "true":
        raise UsageError(
            f"{', '.join(training)} cannot run under Megatron-LM: rlhfctl does not split models "
            "across processes by tensor parallelism",
            hint="use recipes/launch/ddp.yaml, with model.quantization=4bit if memory is short, or "
            "recipes/launch/fsdp2.yaml, which shards the frozen base model",
        )
    if training and os.environ.get(_DEEPSPEED, "").lower() == "true":
        raise no_deepspeed()


def no_deepspeed(where: str = "") -> UsageError:
    """Return the error for a launcher's configuration that requests DeepSpeed.

    Args:
        where: The command-line option that names the configuration.
    """
    return UsageError(
        "DeepSpeed is not supported", where, "use recipes/launch/fsdp2.yaml to shard the base model"
    )


def join_processes() -> Any:
    """Return accelerate's state of this process, connected to its peers, if any.

    Without a GPU, accelerate must be told to use gloo, or each process would run alone. The
    variable that requests FSDP is hidden from the libraries. With it, accelerate would shard the
    trained weights too, and only on a GPU; transformers would initialise the weights of a new
    head in process 0 only.
    """
    if os.environ.pop(_ACCELERATE_FSDP, "").lower() == "true":
        os.environ[_FSDP] = "true"
    import torch
    from accelerate import PartialState
    from accelerate.utils import InitProcessGroupKwargs, parse_flag_from_env

    on_cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    if "LOCAL_RANK" not in os.environ:
        # Said on a CPU too, or accelerate would choose a GPU that the models do not use.
        return PartialState(cpu=on_cpu)
    options = InitProcessGroupKwargs(timeout=_LONGEST_COLLECTIVE).to_kwargs()
    return PartialState(cpu=on_cpu, **options)
