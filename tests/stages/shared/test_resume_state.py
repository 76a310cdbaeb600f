"""Pickles in a checkpoint that is resumed from."""

import os
import random

import numpy as np
import pytest
import torch

from rlhfctl.errors import UnsafeError
from rlhfctl.stages.shared.resume_state import require_plain_state


class Canary:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint with the files that transformers' trainer writes."""
    monkeypatch.chdir(tmp_path)
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 3, "_last_lr": [0.1]}, tmp_path / "scheduler.pt")
    torch.save(state, tmp_path / "rng_state.pth")
    return tmp_path


def test_what_the_trainer_writes_is_fine(checkpoint):
    require_plain_state(checkpoint)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_1.pth"]
)
def test_a_pickle_that_calls_something_is_refused_by_name_and_not_loaded(checkpoint, name):
    torch.save({"state": Canary()}, checkpoint / name)
    with pytest.raises(UnsafeError, match="mkdir") as caught:
        require_plain_state(checkpoint)
    assert caught.value.where == str(checkpoint / name)
    assert not (checkpoint / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04 no archive"])
def test_another_kind_of_file_is_refused_by_name(checkpoint, content):
    (checkpoint / "optimizer.pt").write_bytes(content)
    with pytest.raises(UnsafeError, match="no file of tensors"):
        require_plain_state(checkpoint)
