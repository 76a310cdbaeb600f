"""Every path of a run folder, and the lock that keeps two processes out of one."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault, LockedError
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECIPE_FILE = "recipe.yaml"
"""In a run: the recipe as resolved, every default written out."""
MANIFEST_FILE = "manifest.json"
"""In a run: the record of the finished stages."""
REPORT_FILE = "report.html"
"""In a run: the report page."""
LOGS_FOLDER = "logs"
"""In a run or sweep: metrics, and the output of libraries or of the sweep's runs."""
METRICS_FILE = "metrics.json"
"""In `rm/` and `eval/`: what the stage measured."""
SAMPLES_FILE = "samples.jsonl"
"""In `ppo/`: sampled episodes; in `eval/`: prompts with each policy's response."""
PROBE_FILE = "probe.json"
"""In `rm/`: a few token ids and the scores that training gave them."""
HELD_OUT_RM_FOLDER = "judge"
"""In `rm/`: the reward model that PPO never sees."""
HELD_OUT_FILE = "held_out.jsonl"
"""In `ppo/`: one line per held-out evaluation."""
OVER_OPTIMISATION_FILE = "over_optimisation.json"
"""In `ppo/`: what the held-out evaluations say together."""
BEST_FOLDER = "best"
"""In `ppo/`: the policy with the highest true reward on held-out prompts."""
BEST_MARKER_FILE = "held_out_evaluation.json"
"""In a policy kept as best: the rollout it was kept after."""
CRITIC_FOLDER = "critic"
"""In `ppo/`: the critic."""
SCORES_FILE = "scores.json"
"""In `eval/`: per-prompt measurements of each policy."""
ANSWERS_FILE = "answers.jsonl"
"""In `eval/`: both responses to every prompt, for people to vote on."""
JUDGE_CACHE_FILE = "judge_cache.jsonl"
"""In `eval/`: the endpoint judge's answers."""
HUMAN_KEY_FILE = "human_pairs_key.json"
"""In the run: which side of each exported pair is PPO's."""
HUMAN_VOTES_FILE = "human_votes.jsonl"
"""In `eval/`: the votes as they were imported."""
SWEEP_FILE = "sweep.json"
"""In a sweep's folder: its points and what they show."""


@dataclass(frozen=True)
class RunDirectory:
    """The layout of `runs/NAME`; nothing else builds these paths."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    @property
    def recipe(self) -> Path:
        """The recipe as resolved, every default written out."""
        return self.root / RECIPE_FILE

    @property
    def manifest(self) -> Path:
        """The record of the finished stages."""
        return self.root / MANIFEST_FILE

    @property
    def logs(self) -> Path:
        """The folder of metrics and of what the libraries had to say."""
        return self.root / LOGS_FOLDER

    @property
    def log_file(self) -> Path:
        """Warnings and chatter of the libraries, and tracebacks of failures."""
        return self.logs / "rlhfctl.log"

    @property
    def launch_log(self) -> Path:
        """What `accelerate launch` had to say, and processes that failed to start."""
        return self.logs / "launch.log"

    @property
    def report(self) -> Path:
        """The page that shows the run."""
        return self.root / REPORT_FILE

    def stage(self, name: str) -> Path:
        """The result folder of a stage (`sft`, `rm`, `ppo`, `eval`)."""
        return self.root / name

    def partial(self, name: str) -> Path:
        """Where a stage works until it is done."""
        return self.root / f".{name}.partial"

    def partial_inputs(self, name: str) -> Path:
        """Recipe part and inputs that a stage's partial folder is being made from."""
        return self.root / f".{name}.partial.json"

    def replaced(self, name: str) -> Path:
        """Where an earlier result waits until its successor is recorded."""
        return self.root / f".{name}.replaced"

    def metrics(self, name: str) -> Path:
        """The metrics of a stage, a JSON object a line."""
        return self.logs / f"{name}.jsonl"

    def partial_metrics(self, name: str) -> Path:
        """The metrics of a stage that is not done yet."""
        return self.logs / f"{name}.partial.jsonl"

    def failed_metrics(self, name: str) -> Path:
        """The metrics of a try that failed while an earlier result stands."""
        return self.logs / f"{name}.failed.jsonl"

    def create(self) -> None:
        """Make the run folder and its logs folder.

        Raises:
            EnvironmentFault: The folder cannot be made or written to.
        """
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.root, error) from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise EnvironmentFault(
                "the run folder cannot be written to",
                where=str(self.root),
                hint="change its permissions, or choose another place with --runs-dir",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder; the system frees it when the process ends, however it ends.

        Raises:
            LockedError: Another process holds it; names the host, the process and since when.
            EnvironmentFault: The folder cannot be written to.
        """
        from filelock import FileLock, Timeout

        holder = self.root / ".lock.json"
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise LockedError(
                f"another process works in this run{_describe(holder)}",
                where=str(self.root),
                hint="wait for it to end, or name another run with --run NAME",
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


def _describe(holder: Path) -> str:
    """Say who holds a lock, as far as its holder has written it down."""
    try:
        record = json.loads(holder.read_text(encoding="utf-8"))
        return f": process {record['pid']} on {record['host']}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _unusable(root: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the run folder cannot be used: {error.strerror or error}",
        where=str(root),
        hint="choose another place with --runs-dir",
    )
