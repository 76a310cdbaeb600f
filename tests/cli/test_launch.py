"""Commands in two real processes: --launch, torchrun, and every way in which they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rlhfctl.cli.launch import find, read_config, without_option
from rlhfctl.errors import UsageError

PATHS = [Path(__file__).with_name("launched"), Path(__file__).parents[2]]
CONFIG = "distributed_type: MULTI_GPU\nnum_processes: 2\nmain_process_port: 0\n"


@pytest.fixture(scope="module")
def variables(environment):
    paths = [*map(str, PATHS), os.environ.get("PYTHONPATH", "")]
    return environment | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TINY": "",
    }


@pytest.fixture
def start(folder, variables):
    """Start ``rlhfctl`` in two processes over tiny stages."""
    (folder / "two.yaml").write_text(CONFIG)

    def begin(*arguments, act="", under=("-m", "rlhfctl")):
        return subprocess.Popen(
            [sys.executable, *under, *arguments],
            cwd=folder,
            env=variables | {"TINY": act},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def launch(start):
    """Run it to its end; return exit code, stdout, stderr."""

    def run(*arguments, **how):
        process = start(*arguments, **how)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors

    return run


def test_two_processes_do_every_stage_and_process_0_alone_shows_it(launch, folder):
    code, out, errors = launch(
        "run", "small.yaml", "--json", "--launch", "two.yaml", "--seed", "4", act="ppo:chatter"
    )
    assert code == 0, errors
    value = json.loads(out)
    assert [stage["stage"] for stage in value["stages"]] == ["sft", "rm", "ppo", "eval"]
    assert value["stages"][0]["seed"] == 4
    run = folder / "runs" / "small"
    made = {path.name for path in run.iterdir() if "-by-" in path.name}
    assert made == {"sft-by-1", "rm-by-1", "ppo-by-1"}, "process 0 evaluates alone"
    command = "accelerate launch --config_file two.yaml -m rlhfctl run small.yaml --json --seed 4"
    assert command in errors.splitlines()
    assert errors.count("ppo 0/2 steps") == 1
    assert "chatter" not in errors
    assert "Warning" not in errors
    for name in ("rlhfctl.log", "rank-1.log"):
        assert (run / "logs" / name).read_text().count("chatter on stdout") == 1
    assert "accelerate.commands" in (run / "logs" / "launch.log").read_text()


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        pytest.param("rm:diverged", 5, "the loss is NaN", marks=pytest.mark.slow),
        ("rm:diverged@1 rm:barrier@0", 5, "process 1: the loss is NaN"),
        pytest.param("rm:memory@0 rm:barrier@1", 9, "out of memory", marks=pytest.mark.slow),
        ("rm:die@1 rm:wait_with_checkpoint@0", 4, "process 1 (pid"),
    ],
    ids=["all fail alike", "1 fails", "0 fails", "1 is killed"],
)
def test_all_end_with_the_first_reason_said_once(launch, folder, act, code, said):
    found, out, errors = launch("run", "small.yaml", "--launch", "two.yaml", act=act)
    assert found == code, errors
    assert errors.count(said) == 1
    assert errors.count("error:") == 1
    assert "Traceback" not in errors
    assert out == ""
    run = folder / "runs" / "small"
    assert (run / "sft").exists()
    assert not (run / "rm").exists()
    if "die" in act:
        assert "exited without a status" in errors
        assert (run / ".rm.partial" / "checkpoints" / "step-1").exists()


def wait_for(path, process):
    limit = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "SIGTERM"),
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_the_launching_process_ends_all_in_order(start, folder, number, code, word):
    process = start("sft", "small.yaml", "--launch", "two.yaml", act="sft:wait_with_checkpoint")
    wait_for(folder / "runs" / "small" / "waiting", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.count("error:") == 1
    assert word in errors
    assert "a checkpoint of sft was kept" in errors
    assert "Traceback" not in errors


def test_the_processes_end_with_a_launching_process_that_is_killed(start, folder):
    process = start("sft", "small.yaml", "--launch", "two.yaml", act="sft:wait@0 sft:hang@1")
    run = folder / "runs" / "small"
    wait_for(run / "waiting", process)
    children = {pid for pid in descendants(process.pid) if pid != process.pid}
    assert len(children) >= 3, "accelerate and two processes"
    process.kill()
    killed = time.monotonic()
    process.communicate()
    while any(map(alive, children)):
        assert time.monotonic() - killed < 11
        time.sleep(0.05)


def test_the_processes_end_with_a_killed_launcher(start, folder):
    process = start("sft", "small.yaml", "--launch", "two.yaml", act="sft:wait_with_checkpoint")
    wait_for(folder / "runs" / "small" / "waiting", process)
    (launcher,) = (pid for pid in descendants(process.pid) if parent(pid) == process.pid)
    os.kill(launcher, signal.SIGKILL)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 143
    said = (
        "error: the process that started this one is gone; a checkpoint of sft was kept; re-running"
    )
    assert said in errors
    assert errors.count("error:") == 1


def parent(pid):
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(stat[1])


def descendants(pid):
    """Processes that a process has started, directly or not."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(path.name)] = parent(int(path.name))
    found = {pid}
    while more := {child for child, above in parents.items() if above in found} - found:
        found |= more
    return found - {pid}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_under_torchrun_process_0_says_what_another_failed_with(launch):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    code, _, errors = launch(
        "sft",
        "small.yaml",
        act="sft:disk@1 sft:barrier@0",
        under=(*torchrun, "-m", "rlhfctl"),
    )
    assert code == 1, "torchrun's own"
    assert errors.count("error: process 1: weights: the disk is full") == 1
    assert re.search(r"exitcode\s*:\s*10", errors)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "not an accelerate configuration"),
        ("a: [", "not an accelerate configuration"),
        ("distributed_type: MULTI_GPU\nbeta: 1\n", "unknown keys (['beta'])"),
        ("distributed_type: SOME\n", "not a valid DistributedType"),
        ("distributed_type: MULTI_CPU\nnum_processes: 2\n", "mpirun"),
    ],
)
def test_what_is_no_accelerate_configuration_is_refused(tmp_path, content, said):
    file = tmp_path / "file.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        read_config(file)
    assert caught.value.where == f"--launch {file}"


def test_a_missing_configuration_ends_in_2_with_one_sentence(launch, folder):
    code, _, errors = launch("sft", "small.yaml", "--launch", "none.yaml")
    assert code == 2
    assert errors == (
        "error: --launch none.yaml: file not found\n"
        "pass an accelerate config, for example recipes/launch/ddp.yaml\n"
    )
    assert not (folder / "runs").exists()


def test_megatron_is_refused_by_name(tiny, folder):
    done = tiny("run", "small.yaml", variables={"ACCELERATE_USE_MEGATRON_LM": "true"})
    assert done.returncode == 2
    assert "sft, rm, ppo cannot run under Megatron-LM" in done.stderr
    assert not (folder / "runs" / "small" / "manifest.json").exists()


def test_deepspeed_is_refused_before_anything_is_launched(launch, folder):
    (folder / "deepspeed.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config:\n  zero_stage: 3\n"
    )
    code, out, errors = launch("sft", "small.yaml", "--launch", "deepspeed.yaml")
    assert (code, out) == (2, "")
    assert errors == (
        "error: --launch deepspeed.yaml: DeepSpeed is not supported\n"
        "use recipes/launch/fsdp2.yaml to shard the base model\n"
    )
    assert not (folder / "runs").exists()


def test_deepspeed_is_refused_under_another_launcher(tiny, folder):
    done = tiny("run", "small.yaml", variables={"ACCELERATE_USE_DEEPSPEED": "true"})
    assert done.returncode == 2
    assert "DeepSpeed is not supported\nuse recipes/launch/fsdp2.yaml" in done.stderr
    assert not (folder / "runs" / "small" / "manifest.json").exists()


@pytest.mark.parametrize("stem", ["ddp", "fsdp2"])
def test_a_shipped_configuration_is_found_by_name_and_is_one(tmp_path, monkeypatch, stem):
    monkeypatch.chdir(tmp_path)
    found = {find(Path(name)) for name in (stem, f"{stem}.yaml", f"recipes/launch/{stem}.yaml")}
    assert len(found) == 1
    assert read_config(found.pop()).endswith(f"{stem}.yaml")


def test_a_wrong_recipe_is_found_before_anything_is_launched(launch, folder):
    code, _, errors = launch("sft", "small.yaml", "--set", "ppo.bet=1", "--launch", "two.yaml")
    assert code == 2
    assert "ppo.bet" in errors
    assert "accelerate launch" not in errors


def test_a_launched_process_launches_no_more(folder, variables):
    done = subprocess.run(
        [sys.executable, "-m", "rlhfctl", "sft", "small.yaml", "--launch", "two.yaml"],
        cwd=folder,
        env=variables | {"LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot be used in a process that" in done.stderr


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["ppo", "a.yaml", "--launch", "x.yaml", "--json"], ["ppo", "a.yaml", "--json"]),
        (["ppo", "--launch=x.yaml", "a.yaml"], ["ppo", "a.yaml"]),
        (["ppo", "--set", "a=--launch"], ["ppo", "--set", "a=--launch"]),
    ],
)
def test_the_option_itself_is_left_out_for_the_processes(given, kept):
    assert without_option(given) == kept
