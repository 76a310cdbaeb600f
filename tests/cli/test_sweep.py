"""`rlhfctl sweep` as real processes over stages that take no time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhfctl.run.directory import RunDirectory

LAUNCHED = Path(__file__).with_name("launched")  # puts the tiny stages into every process
ROOT = Path(__file__).parents[2]


@pytest.fixture
def begin(folder, environment):
    """Start a sweep of small.yaml; `act` says what one of the stages does."""

    def start(*arguments, act=""):
        path = os.pathsep.join([str(LAUNCHED), str(ROOT), environment.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-m", "rlhfctl", "sweep", "small.yaml", *arguments],
            cwd=folder,
            env=environment | {"PYTHONPATH": path, "TINY": act},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def sweep(begin):
    def run(*arguments, act=""):
        process = begin(*arguments, act=act)
        process.out, process.err = process.communicate(timeout=120)
        return process

    return run


@pytest.fixture
def root(folder):
    return folder / "runs" / "small-sweep"


def points(root):
    return json.loads((root / "sweep.json").read_text())["points"]


def until(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_grid_shares_sft_and_reward_model_and_ends_in_one_table(sweep, root):
    done = sweep("--set", "ppo.beta=0,0.1", "--set", "seed=0,1", "--jobs", "2", "--json")
    assert done.returncode == 0, done.err
    value = json.loads(done.out)
    assert value["ok"] is True
    assert value["keys"] == ["ppo.beta", "seed"]
    assert [point["run"] for point in value["points"]] == [
        *("beta-0-seed-0", "beta-0-seed-1", "beta-0.1-seed-0", "beta-0.1-seed-1"),
    ]
    assert [point["settings"] for point in value["points"]][3] == {"ppo.beta": 0.1, "seed": 1}
    assert all(point["status"] == "done" for point in value["points"])
    assert value["points"][0]["metrics"]["win_rate_low"] == 0.65
    assert [(run["run"].rsplit("-", 1)[0], run["points"]) for run in value["shared"]] == [
        *(("shared-sft", [0, 2]), ("shared-rm", [0, 2])),
        *(("shared-sft", [1, 3]), ("shared-rm", [1, 3])),
    ]
    assert value["groups"][1]["settings"] == {"ppo.beta": 0.1}
    for point in value["points"]:
        manifest = json.loads((root / point["run"] / "manifest.json").read_text())
        assert list(manifest["stages"]) == ["ppo", "eval"]
    assert "means over seeds" not in done.err
    assert value["report"] == "runs/small-sweep/report.html"
    assert "0.1" in (root / "report.html").read_text()
    for name in ("schema_version", "ok", "errors", "sweep", "report"):
        del value[name]
    assert json.loads((root / "sweep.json").read_text()) == value
    again = sweep("--set", "ppo.beta=0,0.1", "--set", "seed=0,1")
    assert "means over seeds" in again.out


def test_a_point_that_fails_is_recorded_and_the_others_go_on(sweep, root):
    done = sweep("--set", "ppo.beta=0,0.1", act="ppo:diverged")
    assert done.returncode == 5
    for point in points(root):
        assert point["status"] == "failed"
        assert point["error"]["message"] == "the loss is NaN"
        assert point["error"]["exit_code"] == 5
        assert (root / "logs" / f"{point['run']}.log").exists()
    assert done.err.count("the loss is NaN") == 4
    # mended, the same command does what is missing and nothing else
    again = sweep("--set", "ppo.beta=0,0.1")
    assert again.returncode == 0
    assert again.err.count("is up to date, skipped") == 2
    assert [point["status"] for point in points(root)] == ["done", "done"]


def test_what_shared_runs_fail_of_fails_their_points(sweep, root):
    done = sweep("--set", "ppo.beta=0,0.1", act="rm:disk")
    assert done.returncode == 10
    assert [point["error"]["exit_code"] for point in points(root)] == [10, 10]
    assert "a dependency, failed: " in points(root)[1]["error"]["message"]


def test_a_run_ends_with_the_sweep_that_started_it_and_another_sweep_goes_on(begin, root):
    first = begin("--set", "ppo.beta=0,0.1", act="ppo:wait")
    until((root / "beta-0" / "waiting").exists)
    first.kill()
    first.wait()
    first.stdout.close(), first.stderr.close()
    holder = json.loads((root / "beta-0" / ".lock.json").read_text())["pid"]
    killed = time.monotonic()
    until(lambda: not alive(holder))
    assert time.monotonic() - killed < 10
    log = (root / "logs" / "beta-0.log").read_text()
    assert "the process that started this one is gone; ppo had saved no checkpoint" in log
    assert [point["status"] for point in points(root)] == ["waiting", "waiting"]

    second = begin("--set", "ppo.beta=0,0.1")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert said.count("is up to date, skipped") == 2
    assert [point["status"] for point in points(root)] == ["done", "done"]


def test_a_sweep_waits_for_a_run_that_another_process_works_in(begin, root):
    other = RunDirectory(root / "beta-0")
    other.create()
    with other.lock():
        process = begin("--set", "ppo.beta=0,0.1")
        until(lambda: (root / "beta-0.1" / "manifest.json").exists() or process.poll() is not None)
        assert not (root / "beta-0" / "manifest.json").exists()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    holder = os.getpid()
    assert f"beta-0 waiting: another process is using this run: process {holder}" in said
    assert [point["status"] for point in points(root)] == ["done", "done"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_the_runs_too(begin, root, number, code):
    process = begin("--set", "ppo.beta=0,0.1", "--jobs", "2", act="ppo:wait")
    folders = [root / name for name in ("beta-0", "beta-0.1")]
    until(lambda: all((folder / "waiting").exists() for folder in folders))
    pids = [json.loads((folder / ".lock.json").read_text())["pid"] for folder in folders]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert not any(alive(pid) for pid in pids)
    for folder in folders:
        error = json.loads((root / "logs" / f"{folder.name}.json").read_text())["errors"][0]
        assert error["exit_code"] == code


def test_a_recipe_can_carry_its_sweep_and_one_value_takes_a_lists_place(sweep, folder, root):
    with (folder / "small.yaml").open("a") as recipe:
        recipe.write("sweep: {set: {ppo.beta: [0, 0.1], seed: [4, 5]}}\n")
    assert sweep("--seed", "4").returncode == 0
    assert [(point["run"], point["settings"]) for point in points(root)] == [
        ("beta-0", {"ppo.beta": 0.0}),
        ("beta-0.1", {"ppo.beta": 0.1}),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to sweep"),
        (["--set", "ppo.bet=0,1"], "did you mean beta?"),
        (["--set", "ppo.beta=0,0.0"], "two points of the sweep are the same"),
        (["--set", "ppo.beta=0,1", "--set", "seed=1,2,3", "--zip"], "must have equal lengths"),
        (["--set", "name=a,b"], "`name` cannot be swept"),
        (["--set", "ppo.beta=0,1", "--run", "No"], "invalid run name"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_before_anything_runs(
    sweep, root, arguments, sentence
):
    done = sweep(*arguments)
    assert done.returncode == 2
    assert sentence in done.err
    assert not root.exists()
