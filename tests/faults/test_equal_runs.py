"""Equal runs have equal folders, to the last byte, whatever the hash seed of the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BASE_RECIPE, TINY

SAVING = ("sft.save_steps=2", "reward_model.save_steps=1", "ppo.save_rollouts=1")


def run(runs, name, command):
    settings = [part for key in (*TINY, *SAVING) for part in ("--set", key)]
    subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", command, str(BASE_RECIPE), "--quiet"),
            *("--run", name, "--runs-dir", str(runs), *settings),
        ],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": name.removeprefix("seed-")},
    )


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.faults
@pytest.mark.slow
def test_of_every_stage(tmp_path):
    for name in ("seed-1", "seed-2"):
        for command in ("sft", "train-rm", "ppo", "eval"):
            run(tmp_path, name, command)
    for folder in ("sft", "rm", "ppo", "eval"):
        one, other = (contents(tmp_path / name / folder) for name in ("seed-1", "seed-2"))
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []
        assert not any(name.endswith("training_args.bin") for name in one)
