"""Commands in forked processes behave as in processes of their own."""

import os
import subprocess

import pytest

from tests import forked


def test_folder_environment_streams_and_exit_code_are_its_own(tmp_path):
    (tmp_path / "wrong.yaml").write_text("ppo:\n  beta: much\n")
    result = forked.rlhfctl(tmp_path, ["validate"], os.environ | {"RLHFCTL_RECIPE": "wrong.yaml"})
    assert result.returncode == 2
    assert "wrong.yaml:2: ppo.beta" in result.stderr
    assert result.stdout == ""


def test_output_goes_to_stdout(tmp_path):
    result = forked.rlhfctl(tmp_path, ["--version"])
    assert result.returncode == 0
    assert result.stdout.startswith("rlhfctl ")


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        forked.rlhfctl(tmp_path, ["run", "base.yaml"], timeout=0.01)
