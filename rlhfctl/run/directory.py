"""Paths of a run folder, and the lock that gives one process exclusive use of it."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault, LockedError, UnsafeError
from rlhfctl.json_text import parse_json
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LATEST_LINK = "latest"
"""Beside the runs: a link to the one that ran a stage last."""
RECIPE_FILE = "recipe.yaml"
"""In a run: the resolved recipe, defaults included."""
MANIFEST_FILE = "manifest.json"
"""In a run: the record of the finished stages."""
REPORT_FILE = "report.html"
"""In a run: the report page."""
LOGS_FOLDER = "logs"
"""In a run or sweep: metrics, and the output of libraries or of the sweep's runs."""
LOCK_HOLDER_FILE = ".lock.json"
"""In a run that is in use: host, process and start time of the lock's holder."""
METRICS_FILE = "metrics.json"
"""In `rm/` and `eval/`: the metrics of the stage."""
SAMPLES_FILE = "samples.jsonl"
"""In `ppo/`: sampled episodes; in `eval/`: prompts with each policy's response."""
PROBE_FILE = "probe.json"
"""In `rm/`: a few token ids and their scores at the end of training."""
HELD_OUT_RM_FOLDER = "judge"
"""In `rm/`: the held-out reward model, which PPO does not train against."""
HELD_OUT_FILE = "held_out.jsonl"
"""In `ppo/`: one line per held-out evaluation."""
SFT_STATES_FILE = "sft_states.safetensors"
"""In `ppo/`: the reward model's states of SFT's responses to the held-out prompts."""
OVER_OPTIMISATION_FILE = "over_optimisation.json"
"""In `ppo/`: summary of the held-out evaluations."""
BEST_FOLDER = "best"
"""In `ppo/`: the policy with the highest true reward on held-out prompts."""
BEST_MARKER_FILE = "held_out_evaluation.json"
"""In a best checkpoint: the rollout after which it was saved."""
DIVERGED_FILE = "diverged.jsonl"
"""In the partial folder of PPO: the batch at which training diverged."""
VLLM_LOG_FILE = "vllm.log"
"""In `ppo/`: output of the vLLM server that sampled its rollouts."""
REWARD_SCALES_FILE = "reward_scales.json"
"""In `ppo/`: mean and deviation of the scores of reward models from elsewhere."""
AVERAGED_RM_FOLDER = "averaged_rm"
"""In `ppo/` or `eval/`: the reward model of `reward_rule: weight_average`."""
AVERAGED_MARKER_FILE = "averaged.json"
"""In such a reward model: the digests of the reward models that were averaged."""
CRITIC_FOLDER = "critic"
"""In `ppo/`: the critic."""
SCORES_FILE = "scores.json"
"""In `eval/`: per-prompt measurements of each policy."""
ANSWERS_FILE = "answers.jsonl"
"""In `eval/`: both responses to every prompt, for human voting."""
JUDGE_CACHE_FILE = "judge_cache.jsonl"
"""In `eval/`: the endpoint judge's answers."""
HUMAN_KEY_FILE = "human_pairs_key.json"
"""In the run: the side of PPO in each exported pair."""
HUMAN_VOTES_FILE = "human_votes.jsonl"
"""In `eval/`: the votes as imported."""
SWEEP_FILE = "sweep.json"
"""In a sweep's folder: its points and their results."""
METHODS_FILE = "methods.json"
"""In the folder of a comparison of methods: its runs and their results."""


@dataclass(frozen=True)
class RunDirectory:
    """The layout of `runs/NAME`; no other code builds these paths."""

    root: Path

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return self.root.name

    @property
    def recipe(self) -> Path:
        """The resolved recipe, defaults included."""
        return self.root / RECIPE_FILE

    @property
    def manifest(self) -> Path:
        """The record of the finished stages."""
        return self.root / MANIFEST_FILE

    @property
    def logs(self) -> Path:
        """Folder of metrics and library output."""
        return self.root / LOGS_FOLDER

    @property
    def log_file(self) -> Path:
        """Library output and warnings, and tracebacks of failures."""
        return self.logs / "rlhfctl.log"

    @property
    def launch_log(self) -> Path:
        """Output of `accelerate launch`, including processes that failed to start."""
        return self.logs / "launch.log"

    @property
    def progress(self) -> Path:
        """The phase of the stage that is running."""
        return self.logs / ".progress.json"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.root / REPORT_FILE

    def stage(self, name: str) -> Path:
        """The result folder of a stage (`sft`, `rm`, `ppo`, `eval`)."""
        return self.root / name

    def partial(self, name: str) -> Path:
        """Working folder of a stage until it is done."""
        return self.root / f".{name}.partial"

    def partial_inputs(self, name: str) -> Path:
        """Recipe part and inputs of a stage's partial folder."""
        return self.root / f".{name}.partial.json"

    def replaced(self, name: str) -> Path:
        """The earlier result, until the new one is recorded."""
        return self.root / f".{name}.replaced"

    def metrics(self, name: str) -> Path:
        """The metrics of a stage, one JSON object per line."""
        return self.logs / f"{name}.jsonl"

    def partial_metrics(self, name: str) -> Path:
        """The metrics of a stage that is not done yet."""
        return self.logs / f"{name}.partial.jsonl"

    def failed_metrics(self, name: str) -> Path:
        """The metrics of a failed attempt while an earlier result is kept."""
        return self.logs / f"{name}.failed.jsonl"

    def diverged_batch(self, name: str) -> Path:
        """The batch at which a stage diverged, for study."""
        return self.logs / f"{name}.{DIVERGED_FILE}"

    def link_latest(self) -> None:
        """Point the link `latest` beside the run folder to it, in one step.

        What is no link is left alone, and so is a file system without links: no command needs it.
        The runs of a sweep or a comparison of methods have none.
        """
        link = self.root.parent / LATEST_LINK
        is_in_sweep = any((self.root.parent / name).exists() for name in (SWEEP_FILE, METHODS_FILE))
        if is_in_sweep or (link.exists() and not link.is_symlink()):
            return
        new = self.root.parent / f".{LATEST_LINK}.{os.getpid()}"
        try:
            new.unlink(missing_ok=True)
            new.symlink_to(self.name, target_is_directory=True)
            new.replace(link)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def discard_launch_log(self) -> None:
        """Remove the folder of a launched command that was refused before a stage began."""
        if not self.recipe.exists():
            self.launch_log.unlink(missing_ok=True)
            with suppress(OSError):  # there is more in it
                self.logs.rmdir()
                self.root.rmdir()

    def create(self) -> None:
        """Create the run folder and its logs folder.

        Raises:
            EnvironmentFault: The folder cannot be created or is not writable.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.root, error) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise EnvironmentFault(
                "the run folder is not writable",
                where=str(self.root),
                hint="change the permissions, or choose another directory with --runs-dir",
            )

    def is_locked(self) -> bool:
        """Return whether a process holds the lock; one that was killed holds none."""
        # Without a record of the holder no lock is tried, which could be in the way of a start.
        if not (self.root / LOCK_HOLDER_FILE).exists():
            return False
        try:
            descriptor = os.open(self.root / ".lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run folder; the operating system releases the lock if the process dies.

        Raises:
            LockedError: Another process holds the lock; gives its host, pid and start time.
            EnvironmentFault: The folder is not writable.
        """
        from filelock import FileLock, Timeout

        holder = self.root / LOCK_HOLDER_FILE
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"another process is using this run{_describe(holder)}",
                where=str(self.root),
                hint="wait for it to finish, or use another run with --run NAME",
            ) from None
        except OSError as error:
            raise _unusable(self.root, error) from error
        try:
            write_json(
                holder,
                {
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def linked_run(runs_dir: Path) -> str | None:
    """Return the name of the run that `latest` points to; None if there is no such link.

    Raises:
        UnsafeError: The link leads elsewhere than to a folder beside it.
    """
    link = runs_dir / LATEST_LINK
    if not link.is_symlink():
        return None
    target = str(link.readlink())
    if target in {"", ".", "..", LATEST_LINK} or "/" in target or (runs_dir / target).is_symlink():
        raise UnsafeError(
            f"the link leads to {target}, and not to a run beside it",
            str(link),
            "remove the link; the next run makes it anew",
        )
    return target


def _describe(holder: Path) -> str:
    """Describe the holder of a lock; empty if it left no record."""
    try:
        record = parse_json(holder.read_text(encoding="utf-8"))
        return f": process {record['pid']} on {record['host']}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _unusable(root: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the run folder cannot be used: {error.strerror or error}",
        where=str(root),
        hint="choose another directory with --runs-dir",
    )
