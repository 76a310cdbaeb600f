"""A disk that fills up ends training with what is needed and free, and keeps what was saved."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rlhfctl.errors import DiskFullError, ExitCode
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.disk import folder_bytes, free_bytes, space_for
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.shared.disk_space import checkpoint_bytes
from rlhfctl.stages.shared.hf_checkpoints import newest_valid
from tests.ppo.toy import Bandit, bandit_settings
from tests.present import present
from tests.stages.shared.small_trainers import trainer_of
from tests.stages.shared.test_finite import At, checkpoints

MEGABYTE = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """Mount a real disk of so many bytes."""
    mounted: list[Path] = []

    def mount(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(command, check=False).returncode:
            pytest.skip("only root may mount a disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # a failed write holds its file


def fill(folder, left):
    """Take all space but `left` bytes."""
    (folder / "filler").write_bytes(bytes(max(0, free_bytes(folder) - left)))


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_training_does_not_begin_without_room_for_two_checkpoints(small_disk, stage):
    with pytest.raises(DiskFullError) as caught:
        trainer_of(stage, small_disk(2 * MEGABYTE))
    error = caught.value
    assert error.exit_code == ExitCode.DISK_FULL
    assert f"2 checkpoints of {stage} needs" in error.what
    assert "2.1 MB are free" in error.what
    assert error.where.endswith("/disk0/checkpoints")


def test_a_disk_that_fills_up_keeps_the_checkpoints_before(small_disk, tmp_path):
    size = checkpoint_bytes(trainer_of("sft", tmp_path).model)
    disk = small_disk(5 * size)
    trainer = trainer_of("sft", disk)
    trainer.add_callback(At("on_step_begin", 2, lambda _named: fill(disk, size // 2)))
    with pytest.raises(DiskFullError, match="a checkpoint of sft needs"):
        trainer.train()
    assert checkpoints(disk) == ["checkpoint-1", "checkpoint-2"]
    assert present(newest_valid(disk / "checkpoints", NullMonitor())).name == "checkpoint-2"


def test_a_checkpoint_is_not_larger_than_is_asked_for(tmp_path):
    trainer = trainer_of("sft", tmp_path)
    trainer.train()
    saved = tmp_path / "checkpoints" / "checkpoint-6"
    assert not (saved / "training_args.bin").exists(), "a pickle that nothing reads"
    assert not (saved.parent / "README.md").exists(), "TRL's card has no fixed order"
    written = folder_bytes(saved)
    assert 0.9 * written < checkpoint_bytes(trainer.model) * 1.1
    assert checkpoint_bytes(trainer.model) < 1.2 * written


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "torch": torch.save,
    "safetensors": save_file,
    "python": lambda _tensors, path: path.write_bytes(bytes(2 * MEGABYTE)),
}


@pytest.mark.parametrize("writer", list(WRITERS))
def test_a_write_that_does_not_fit_is_told_in_one_way(small_disk, writer):
    disk = small_disk(MEGABYTE)
    partial = disk / "partial"
    partial.mkdir()
    tensors = {"weights": torch.zeros(MEGABYTE)}
    with (
        pytest.raises(DiskFullError, match=r"a file needs 11 bytes, and .* are free") as caught,
        space_for(disk, 10, "a file", partial),
    ):
        WRITERS[writer](tensors, partial / "weights")
    assert caught.value.where == str(disk)
    assert not partial.exists()


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="other"), space_for(tmp_path, 10, "a file"):
        raise ValueError("other")


def test_ppo_asks_before_it_begins_and_keeps_what_it_saved(small_disk):
    disk = small_disk(MEGABYTE)
    bandit = Bandit()

    class Fill(NullMonitor):
        def step(self, done, metrics):
            if done == 2 * 256:
                fill(disk, 0)

    def train():
        settings = bandit_settings(episodes=256 * 4, save_rollouts=1)
        PPOTrainer(bandit, [[1]], settings, Fill(), checkpoints=disk / "checkpoints").train()

    with pytest.raises(DiskFullError, match="a checkpoint of ppo needs"):
        train()
    assert [path.name for path in (disk / "checkpoints").iterdir()] == ["rollout-00000001"]
    with pytest.raises(DiskFullError, match="checkpoints of ppo needs"):
        train()
