"""Signals at random moments of every stage.

``python -m tests.faults.stopped --trials 50`` sends SIGTERM to one of two processes under
``--launch``; with ``--signal KILL``, SIGKILL to the only process. A line is printed per trial. Each
stage is finally run to its end; its weights must equal those of a run that was never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.run.exit_status import alive

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
BASE_RECIPE = ROOT / "recipes" / "base.yaml"
TWO = "distributed_type: MULTI_GPU\nnum_processes: 2\nmain_process_port: 0\n"
FOLDERS = {"sft": "sft", "train-rm": "rm", "ppo": "ppo", "eval": "eval"}
WEIGHTS = (
    "adapter_model.safetensors",
    "judge/adapter_model.safetensors",
    "critic/adapter_model.safetensors",
)
SMALL = (
    "data.demonstrations.max_rows=144",
    "data.comparisons.max_rows=144",
    "data.prompts.max_rows=160",
    "sft.per_device_train_batch_size=1",
    "sft.gradient_accumulation_steps=2",
    "reward_model.per_device_train_batch_size=2",
    "reward_model.judge_share=0.3",
    "reward_model.calibration_samples=32",
    "ppo.gate=warn",
    "ppo.episodes=192",
    "ppo.rollout_batch_size=16",
    "ppo.minibatch_size=4",
    "ppo.eval_rollouts=2",
    "ppo.eval_prompts=8",
    "ppo.kl_controller={target: 2, horizon: 500}",
    "ppo.ema_decay=0.5",
    "generation.max_new_tokens=16",
    "evaluation.num_prompts=16",
    "evaluation.batch_size=4",
)


@dataclass(frozen=True)
class Trial:
    """Outcome of one trial.

    Attributes:
        command: Command that was stopped.
        signal: The signal.
        rank: Process that received it.
        delay: Seconds from its start to the signal.
        code: Exit code of the command; None if it had ended before the signal.
        seconds: Seconds from the signal to the end of the command.
        said: Its stderr.
        survivors: Ids of its processes that were alive afterwards.
    """

    command: str
    signal: signal.Signals
    rank: int
    delay: float
    code: int | None
    seconds: float
    said: str
    survivors: tuple[int, ...] = ()

    @property
    def sound(self) -> bool:
        """True if it ended as it must: 143, one message about the signal, no process left.

        A process that was killed can say nothing; what counts is that its run can go on.
        """
        if self.signal == signal.SIGKILL:
            return self.code == -signal.SIGKILL and not self.survivors
        return (
            self.code == signal.SIGTERM + 128
            and self.said.count("error: ") == 1
            and "terminated by SIGTERM" in self.said
            and not self.survivors
        )


class Runs:
    """Runs of a small recipe in one folder.

    Attributes:
        folder: Parent of the run folders.
        signal: Signal that stops a command: SIGKILL of one process, others to one of two.
        processes: Processes of each command.
    """

    def __init__(self, folder: Path, number: signal.Signals = signal.SIGTERM) -> None:
        self.folder = folder
        self.signal = number
        self.processes = 1 if number == signal.SIGKILL else 2
        (folder / "two.yaml").write_text(TWO)

    def start(self, run: str, command: str) -> tuple[subprocess.Popen[str], Path]:
        """Start a command; return its process and the folder of its temporary files."""
        settings = [word for key in SMALL for word in ("--set", key)]
        launch = ("--launch", "two.yaml") if self.processes == 2 else ()
        temporary = Path(tempfile.mkdtemp(dir=self.folder))
        variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "rlhfctl", command, str(BASE_RECIPE)),
                *("--run", run, "--runs-dir", str(self.folder), *launch),
                *settings,
            ],
            cwd=self.folder,
            env=os.environ | variables | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return process, temporary

    def finish(self, run: str, command: str) -> float:
        """Run a command to its end; return the seconds from the start of its processes."""
        process, temporary = self.start(run, command)
        began = time.monotonic()
        if len(self.pids(process, temporary)) == 2:
            began = time.monotonic()
        _, said = process.communicate(timeout=900)
        if process.returncode:
            raise RuntimeError(f"{command} of {run} ended with {process.returncode}: {said}")
        return time.monotonic() - began

    def stop(self, run: str, command: str, rank: int, delay: float) -> Trial:
        """Start a command, send SIGTERM to one of its processes, and wait for the end."""
        process, temporary = self.start(run, command)
        ids = self.pids(process, temporary)
        time.sleep(delay)
        finished = process.poll() is not None or len(ids) < self.processes or not alive(ids[rank])
        if not finished:
            os.kill(ids[rank], self.signal)
        sent = time.monotonic()
        _, said = process.communicate(timeout=300)
        seconds = time.monotonic() - sent
        left = tuple(pid for pid in ids if alive(pid))
        # The stage may have been recorded when the signal came.
        code = None if finished or process.returncode == 0 else process.returncode
        return Trial(command, self.signal, rank, delay, code, seconds, said, left)

    def pids(self, process: subprocess.Popen[str], temporary: Path) -> list[int]:
        """Return the ids of the processes, by rank, once two handle signals; fewer if they ended."""
        if self.processes == 1:
            return [process.pid]
        while process.poll() is None:
            statuses = sorted(temporary.glob("rlhfctl-*/rank-*.json"))
            if len(statuses) == 2:
                return [json.loads(path.read_text())["pid"] for path in statuses]
            time.sleep(0.02)
        return []

    def weights(self, run: str, command: str) -> dict[str, bytes]:
        """Return the weights of a finished stage of a run."""
        folder = self.folder / run / FOLDERS[command]
        return {name: (folder / name).read_bytes() for name in WEIGHTS if (folder / name).exists()}

    def copy(self, run: str, copy: str) -> None:
        """Copy a run folder, if there is one yet."""
        if (self.folder / run).exists():
            shutil.copytree(self.folder / run, self.folder / copy)


def trials(
    folder: Path,
    number: int,
    commands: Sequence[str],
    seed: int,
    before: Sequence[str] = (),
    stop_by: signal.Signals = signal.SIGTERM,
) -> list[Trial]:
    """Stop each command in turn, at moments spread over its duration, until it is done.

    A command that is done is started anew in another run, until it had its share of the trials.

    Args:
        folder: Empty folder.
        number: Number of trials over all commands.
        commands: Commands, in order.
        seed: Seed of the moments and ranks.
        before: Commands to run first, without a signal.
        stop_by: The signal.

    Raises:
        RuntimeError: The weights of a run differ from those of one that was not stopped.
    """
    runs, chance = Runs(folder, stop_by), random.Random(seed)
    results: list[Trial] = []
    for command in before:
        runs.finish("whole", command)
    for place, command in enumerate(commands):
        runs.copy("whole", f"before-{command}")
        duration = runs.finish("whole", command)
        left = number // len(commands) + (place < number % len(commands))
        repetition = 0
        while left > 0:
            run = f"{command}-{repetition}"
            runs.copy(f"before-{command}", run)
            while left > 0:
                moment = chance.uniform(0, duration)
                trial = runs.stop(run, command, chance.randrange(runs.processes), moment)
                if trial.code is None:
                    break
                left -= 1
                results.append(trial)
                report(len(results), trial)
            runs.finish(run, command)
            if runs.weights(run, command) != runs.weights("whole", command):
                raise RuntimeError(f"the weights of {run} differ from those of a whole run")
            repetition += 1
    return results


def report(number: int, trial: Trial) -> None:
    """Print a trial as a line, with what it said where it isn't sound."""
    kept = [line for line in trial.said.splitlines() if "saved a checkpoint" in line]
    state = "sound" if trial.sound else "UNSOUND"
    line = f"{number:3d} {trial.command:8s} rank {trial.rank} after {trial.delay:5.1f} s"
    print(f"{line}: {trial.code} in {trial.seconds:4.1f} s {state} {' '.join(kept)}", flush=True)
    if state == "UNSOUND":
        print(trial.said, trial.survivors, flush=True)


def main() -> int:
    """Run the trials; return 1 if one was not sound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=list(FOLDERS))
    parser.add_argument("--signal", choices=["TERM", "KILL"], default="TERM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = trials(
            *(Path(folder), options.trials, options.commands, options.seed),
            stop_by=signal.Signals[f"SIG{options.signal}"],
        )
    sound = sum(trial.sound for trial in results)
    longest = max(trial.seconds for trial in results)
    print(f"{sound} of {len(results)} ended as they must, the longest in {longest:.1f} s; ", end="")
    print("every stage was then resumed to weights equal to an uninterrupted run's, bit for bit")
    return int(sound < len(results))


if __name__ == "__main__":
    sys.exit(main())
