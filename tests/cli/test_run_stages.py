"""Commands that run stages, as real processes: what is printed where, and how they end."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = str(Path(__file__).with_name("tiny.py"))


def test_a_run_shows_what_was_achieved_and_where_it_lies(whole_run):
    folder, done = whole_run
    assert done.returncode == 0, done.stderr
    assert "PPO win rate over SFT (gold reward) 70.0% (65.0% to 75.0%)" in done.stdout
    assert "held-out loss 3.000 -> 1.500" in done.stdout
    assert "run folder  runs/small" in done.stdout
    assert "report      runs/small/report.html" in done.stdout
    assert "recipe small.yaml (argument), run runs/small" in done.stderr
    assert (folder / "runs" / "small" / "report.html").read_text().startswith("<!")


def test_the_commands_by_hand_do_what_run_does(tiny, folder):
    for command in (["sft", "small.yaml"], ["train-rm"], ["ppo"], ["eval"]):
        done = tiny(*command)
        assert done.returncode == 0, done.stderr
    assert (folder / "runs" / "small" / "report.html").exists()
    again = tiny("run")
    assert "newest run" in again.stderr
    assert again.stderr.count(": up to date, skipped") == 4


@pytest.mark.parametrize(
    ("command", "kind"),
    [("sft", "demonstrations"), ("train-rm", "comparisons"), ("ppo", "prompts")],
)
def test_a_missing_file_is_found_before_there_is_a_run_folder(tiny, folder, command, kind):
    done = tiny(command, "small.yaml", "--set", f"data.{kind}.source=none.jsonl")
    assert done.returncode == 3
    assert f"data.{kind}: none.jsonl: there is no such file" in done.stderr
    assert not (folder / "runs").exists()


@pytest.mark.usefixtures("finished")
def test_a_report_is_named_only_by_the_commands_that_renew_it(tiny):
    assert "report" in tiny("eval").stdout
    assert "report" not in tiny("sft", "--force").stdout


def test_a_second_command_changes_the_runs_recipe_on_top_of_what_it_was(tiny, folder):
    tiny("sft", "small.yaml", "--seed", "9", "--set", "ppo.gamma=0.9")
    assert tiny("train-rm").returncode == 0
    tiny("ppo", "--beta", "0.125")
    shown = json.loads(tiny("show", "--json").stdout)["recipe"]
    assert (shown["seed"], shown["ppo"]["gamma"], shown["ppo"]["beta"]) == (9, 0.9, 0.125)


def test_json_is_one_object_on_stdout_and_nothing_else(tiny):
    done = tiny("run", "small.yaml", "--json", act="ppo:chatter")
    value = json.loads(done.stdout)
    assert value["ok"] is True
    assert [stage["stage"] for stage in value["stages"]] == ["sft", "rm", "ppo", "eval"]
    assert value["stages"][3]["metrics"]["win_rate"] == 0.7
    assert value["run"] == "runs/small"
    assert value["report"] == "runs/small/report.html"
    assert (value["schema_version"], value["errors"]) == (1, [])
    assert "[4/4] Evaluation" in done.stderr
    assert "PPO win rate" not in done.stderr


def test_quiet_leaves_only_the_result(tiny):
    done = tiny("sft", "small.yaml", "--quiet")
    assert done.stderr == ""
    assert "held-out loss" in done.stdout
    silent = tiny("sft", "--quiet", "--json")
    assert silent.stderr == ""
    assert json.loads(silent.stdout)["stages"][0]["status"] == "skipped"


def test_library_chatter_goes_to_the_log_file(tiny, folder):
    done = tiny("sft", "small.yaml", act="sft:chatter")
    assert "library" not in done.stdout + done.stderr
    log = (folder / "runs" / "small" / "logs" / "rlhfctl.log").read_text()
    for said in ("chatter on stdout", "chatter on stderr", "library warning", "library record"):
        assert said in log


def test_without_a_terminal_progress_is_plain_lines(tiny):
    done = tiny("sft", "small.yaml")
    assert "sft 0/2 steps" in done.stderr
    assert re.search(r"^sft 2/2 steps  loss 1\.5  in \d+ s$", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("diverged", 5, "the loss is NaN"),
        ("memory", 9, "out of memory"),
        ("torch_memory", 9, "out of memory"),
        ("disk", 10, "the disk is full"),
        ("wrapped_disk", 10, "the disk is full"),
        ("hub", 4, "Hugging Face Hub"),
        ("permission", 4, "/somewhere"),
        ("interrupt", 130, "interrupted"),
        ("bug", 1, "internal error: ValueError: a bug\\u001b[2J[/b]"),
    ],
)
def test_every_failure_has_its_exit_code_and_one_clear_message(tiny, folder, act, code, said):
    done = tiny("sft", "small.yaml", act=f"sft:{act}")
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (folder / "runs" / "small" / "sft").exists()
    assert "Traceback" in (folder / "runs" / "small" / "logs" / "rlhfctl.log").read_text()


def test_a_failure_as_json_says_what_where_and_what_to_do(tiny):
    done = tiny("sft", "small.yaml", "--json", act="sft:diverged")
    assert done.returncode == 5
    assert json.loads(done.stdout) == {
        "schema_version": 1,
        "ok": False,
        "errors": [
            {
                "exit_code": 5,
                "type": "DivergedError",
                "message": "the loss is NaN",
                "where": "",
                "hint": "lower the learning rate",
            }
        ],
    }


def test_debug_shows_the_traceback_but_no_local_values(tiny):
    done = tiny("sft", "small.yaml", "--debug", act="sft:bug", variables={"HF_TOKEN": "hf_CANARY"})
    assert "Traceback" in done.stderr
    assert "tiny.py" in done.stderr
    assert "hf_CANARY" not in done.stderr


def test_a_missing_stage_ends_in_7_and_names_its_command(tiny, folder):
    done = tiny("ppo", "small.yaml")
    assert done.returncode == 7
    assert "rlhfctl sft --run small" in done.stderr
    assert not (folder / "runs").exists()


GATES = 'name: small\nevaluation:\n  gates: {win_rate: ">=0.9", kl: "<=12"}\n'


def test_a_failed_gate_ends_in_6_after_the_report_is_written(tiny, folder):
    (folder / "gated.yaml").write_text(GATES)
    done = tiny("run", "gated.yaml", "--json")
    assert done.returncode == 6
    assert "gate failed: win_rate >= 0.9, but it is 0.7" in done.stderr
    value = json.loads(done.stdout)
    assert value["ok"] is False
    (error,) = value["errors"]
    assert (error["exit_code"], error["where"]) == (6, "evaluation.gates.win_rate")
    assert [(gate["metric"], gate["passed"]) for gate in value["gates"]] == [
        ("win_rate", False),
        ("kl", True),
    ]
    assert (folder / "runs" / "small" / "report.html").exists()


@pytest.mark.usefixtures("finished")
def test_a_gate_holds_an_evaluation_that_was_up_to_date_too(tiny):
    done = tiny("eval", "--set", "evaluation.gates={win_rate: '>=0.9'}")
    assert "Evaluation: up to date" in done.stderr
    assert done.returncode == 6


@pytest.mark.parametrize("file", ["recipe.yaml", "manifest.json"])
def test_a_runs_folder_that_is_no_folder_ends_in_4(tiny, folder, file):
    (folder / file).write_text("x")
    done = tiny("sft", "small.yaml", "--runs-dir", folder / file / "runs")
    assert done.returncode == 4
    assert "--runs-dir" in done.stderr


def start(folder, environment, *arguments, act):
    process = subprocess.Popen(
        [sys.executable, TINY, *arguments],
        cwd=folder,
        env=environment | {"TINY": act},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting = folder / "runs" / "small" / "waiting"
    while not waiting.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    return process


def test_a_run_that_another_process_works_in_ends_in_8(tiny, folder, environment):
    process = start(folder, environment, "sft", "small.yaml", act="sft:wait")
    done = tiny("sft", "small.yaml")
    process.kill()
    process.communicate()
    assert done.returncode == 8
    assert f"process {process.pid}" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated by SIGTERM"),
        (signal.SIGUSR1, 143, "terminated by SIGUSR1"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_a_signal_ends_a_stage_in_order(folder, environment, number, code, word):
    process = start(folder, environment, "sft", "small.yaml", act="sft:wait")
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code
    said = f"error: {word}; sft had saved no checkpoint; finished stages are kept, and re-running"
    assert said in errors
    assert errors.count("checkpoint") == errors.count("re-running") == 1
    assert "Traceback" not in errors
    assert not (folder / "runs" / "small" / ".sft.partial").exists()


def test_a_second_signal_does_not_wait_for_a_safe_point(folder, environment):
    process = start(folder, environment, "sft", "small.yaml", act="sft:hang")
    log = folder / "runs" / "small" / "logs" / "rlhfctl.log"
    process.send_signal(signal.SIGTERM)
    while "SIGTERM: stopping at the next safe point" not in log.read_text():
        time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143
    assert "sft had saved no checkpoint" in errors


def test_a_signal_after_a_checkpoint_keeps_it(folder, environment):
    process = start(folder, environment, "sft", "small.yaml", act="sft:wait_with_checkpoint")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143
    assert "error: terminated by SIGTERM; a checkpoint of sft was kept; re-running" in errors
    assert errors.count("was kept") == errors.count("re-running") == 1
    assert (folder / "runs" / "small" / ".sft.partial" / "checkpoints" / "step-1").exists()


def on_terminal(folder, environment, *arguments):
    """Run over tiny stages with stderr on a terminal; return what it showed there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, TINY, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    process.communicate()
    assert process.returncode == 0
    return shown.decode()


def test_on_a_terminal_there_is_a_live_bar_and_the_cursor_comes_back(folder, environment):
    shown = on_terminal(folder, environment, "sft", "small.yaml")
    assert "2/2" in shown
    assert "━" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "sft 0/2" not in shown


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"CI": "1"}])
def test_a_dumb_terminal_and_a_ci_runner_get_plain_lines(folder, environment, variables):
    shown = on_terminal(folder, environment | variables, "sft", "small.yaml")
    assert "sft 0/2 steps" in shown
    assert "\x1b" not in shown
