"""Workflows, compose file, dev container and cluster examples agree with the package.

`make lint-deploy` checks their form; these tests check that what they name exists here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rlhfctl import __version__
from rlhfctl.cli.app import app
from rlhfctl.errors import ExitCode
from rlhfctl.recipe.load import load_recipe, shipped_recipe

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKE_TARGETS = set(
    re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
)
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "how-to" / "docker-and-ci.md").read_text(encoding="utf-8")


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")))


def check_command(words: list[str]) -> None:
    """Parse a rlhfctl command line as the CLI does, without running it."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    name, *arguments = words
    group.commands[name].make_context(name, arguments)


# Workflows


def jobs() -> list[tuple[str, dict[str, Any]]]:
    named = [
        (f"{path.name}: {name}", job)
        for path in WORKFLOWS
        for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
    ]
    assert len(named) == 5
    return named


def test_every_action_is_named_by_commit_with_its_release_beside_it():
    uses = [
        line.split("uses:", 1)[1].strip()
        for text in [PAGE, *(path.read_text(encoding="utf-8") for path in WORKFLOWS)]
        for line in text.splitlines()
        if "uses:" in line
    ]
    assert len(uses) > 10
    for action in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action
    assert len({action.partition("@")[0] for action in uses}) == len(set(uses))


def test_workflows_may_read_and_only_the_publishing_job_writes_packages():
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert "pull_request_target" not in text
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    writing = {name: job["permissions"] for name, job in jobs() if "permissions" in job}
    assert writing == {"image.yml: publish": {"contents": "read", "packages": "write"}}
    assert all(job["timeout-minutes"] <= 90 for _, job in jobs())


def test_nothing_that_writes_or_owns_hardware_runs_for_a_pull_request():
    guarded = {name for name, job in jobs() if "!= 'pull_request'" in job.get("if", "")}
    assert guarded == {"image.yml: publish", "tests.yml: gpu"}


def test_the_tests_run_on_every_python_that_the_package_allows():
    matrix = dict(jobs())["tests.yml: test"]["strategy"]["matrix"]["python"]
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'requires-python = ">=3.11,<3.14"' in pyproject
    assert matrix == ["3.11", "3.12", "3.13"]


def test_every_step_runs_make_targets_that_exist():
    steps = [step["run"] for _, job in jobs() for step in job["steps"] if "run" in step]
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    steps += re.split(r" && (?:sudo )?", container["postCreateCommand"])
    assert len(steps) == 10
    for step in steps:
        make, *words = shlex.split(step)
        assert make == "make"
        assert {word for word in words if "=" not in word} <= MAKE_TARGETS, step


def test_the_image_is_published_with_a_bill_of_materials_and_provenance():
    build = next(
        step["with"]
        for step in dict(jobs())["image.yml: publish"]["steps"]
        if step.get("uses", "").startswith("docker/build-push-action")
    )
    assert (build["sbom"], build["provenance"]) == (True, "mode=max")
    arguments = re.findall(r"^(\w+)=", build["build-args"], re.MULTILINE)
    assert all(re.search(rf"^ARG {name}\b", DOCKERFILE, re.MULTILINE) for name in arguments)


def test_every_documented_docker_run_keeps_the_hub_cache_and_shares_memory():
    shown = re.findall(r"docker run ((?:.|\n)*?)\s+rlhfctl (run .*)", PAGE)
    assert len(shown) == 2
    for options, command in shown:
        assert {"--rm", "--ipc=host"} <= set(options.split())
        assert "-v huggingface:/home/rlhfctl/.cache/huggingface" in options
        check_command(shlex.split(command))


# Compose


@pytest.mark.parametrize("service", ["rlhfctl", "cpu"])
def test_a_service_writes_to_its_volumes_only_and_has_time_to_save(service: str) -> None:
    held = documents("compose.yaml")[0]["services"][service]
    assert (held["read_only"], held["cap_drop"], held["ipc"]) == (True, ["ALL"], "host")
    home = re.search(r"HF_HOME=(\S+)", DOCKERFILE)
    assert home
    assert f"huggingface:{home[1]}" in held["volumes"]
    assert held["stop_grace_period"] == "5m"


def test_the_cpu_service_builds_the_image_for_cpus():
    build = documents("compose.yaml")[0]["services"]["cpu"]["build"]
    assert build["args"] == {"DEVICE": "cpu"}
    assert "FROM python AS packages-cpu" in DOCKERFILE


# Kubernetes


def kubernetes(kind: str) -> dict[str, Any]:
    return next(d for d in documents("examples/kubernetes/job.yaml") if d["kind"] == kind)


def test_a_preempted_pod_is_replaced_and_what_would_fail_again_is_not():
    spec = kubernetes("Job")["spec"]
    rules = [
        (rule["action"], set(rule["onExitCodes"]["values"]))
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    ]
    retried = {ExitCode.INTERNAL, ExitCode.ENVIRONMENT, ExitCode.LOCKED}
    ignored = {ExitCode.INTERRUPTED, ExitCode.PREEMPTED}
    assert rules == [
        ("Ignore", ignored),
        ("FailJob", set(ExitCode) - retried - ignored - {ExitCode.DONE}),
    ]
    assert spec["podReplacementPolicy"] == "Failed"


def test_the_pod_runs_this_version_and_a_recipe_that_loads(tmp_path: Path) -> None:
    (container,) = kubernetes("Job")["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(f"/rlhfctl:{__version__}")
    check_command(container["args"])
    recipe = tmp_path / Path(container["args"][1]).name
    recipe.write_text(kubernetes("ConfigMap")["data"][recipe.name], encoding="utf-8")
    assert load_recipe(recipe).recipe.evaluation.gates == {"win_rate": ">=0.55"}


# SLURM


@pytest.mark.parametrize(("code", "queued"), [(0, False), (6, False), (143, True)])
def test_only_a_preempted_job_is_queued_again(tmp_path: Path, code: int, queued: bool) -> None:
    for name, text in {"srun": f"exit {code}", "scontrol": 'echo "$@"'}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    script = ROOT / "examples" / "slurm" / "one-gpu.sbatch"
    done = subprocess.run(
        [script, "base"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ("requeue 7\n" if queued else "")


@pytest.mark.parametrize("name", ["one-gpu.sbatch", "two-nodes.sbatch"])
def test_a_job_is_warned_before_its_limit_and_names_a_shipped_recipe(name: str) -> None:
    text = (ROOT / "examples" / "slurm" / name).read_text(encoding="utf-8")
    assert re.search(r"^#SBATCH --signal=(USR1|TERM)@300$", text, re.MULTILINE)
    example = re.search(rf"# +sbatch examples/slurm/{name} (\S+) \S+$", text, re.MULTILINE)
    assert example
    assert shipped_recipe(example[1])
    command = re.search(r"rlhfctl (run .*?)(?: \|\||$)", text, re.MULTILINE)
    assert command
    check_command(shlex.split(command[1]))


# SkyPilot


def test_the_managed_job_resumes_after_a_preemption_only():
    (task,) = documents("examples/skypilot/rlhf.sky.yaml")
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [ExitCode.PREEMPTED]
    assert shipped_recipe(task["envs"]["RECIPE"])
    command = re.search(r"rlhfctl (run .*)", task["run"])
    assert command
    check_command(shlex.split(command[1]))
    assert "--runs-dir /runs" in task["run"]
    assert list(task["file_mounts"]) == ["/runs"]
