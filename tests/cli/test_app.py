"""The commands and their help, which load no torch."""

import json
import re
import subprocess
import sys

import pytest

import rlhfctl as package
from rlhfctl.cli.app import app
from rlhfctl.cli.help import BEFORE, RESULTS, TRAINING
from rlhfctl.errors import EXIT_CODE_MEANINGS

HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "matplotlib"}

WITNESS = """
import sys
from rlhfctl.__main__ import main
try:
    main()
except SystemExit:
    pass
print("LOADED", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ppo", "--help"],
        ["--version"],
        ["ppo", "--bata", "1"],
        ["sfft"],
        ["show", "small.yaml"],
        ["show", "small.yaml", "--set", "ppo.bata=1"],
        ["validate", "small.yaml"],
        ["init", "new.yaml"],
        ["recipes"],
        ["schema"],
        ["ppo", "small.yaml"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded_before_a_stage_starts(arguments, folder, environment):
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.splitlines()[-1].split()[1:])
    assert "rlhfctl" in loaded
    assert loaded & HEAVY == set()


def test_help_and_a_mistyped_option_do_not_even_load_the_recipes(folder, environment):
    for arguments in (["--help"], ["ppo", "--bata", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", WITNESS, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "yaml" not in done.stderr.splitlines()[-1].split()


def test_help_has_every_command_and_the_table_of_exit_codes(rlhfctl):
    shown = rlhfctl("--help")
    assert shown.returncode == 0
    for command in ("sft", "train-rm", "ppo", "eval", "run", "show", "validate"):
        assert re.search(rf"\b{command}\b", shown.stdout)
    for code, meaning in EXIT_CODE_MEANINGS.items():
        assert re.search(rf"^\s*{int(code)}\s+{re.escape(meaning)}", shown.stdout, re.MULTILINE)


def test_a_bare_command_is_answered_with_a_quick_start_and_the_commands(rlhfctl):
    shown = rlhfctl()
    assert (shown.returncode, shown.stderr) == (2, "")
    lines = shown.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    start = lines.index("Quick start") + 1
    for line in lines[start : start + 4]:
        assert re.match(r"  rlhfctl (run|init|validate)\b", line)
    assert lines[start + 4] == ""
    registered = {command.name for command in app.registered_commands}
    registered |= {group.name for group in app.registered_groups}
    named = re.split(r"[ ,]+", " ".join(lines[lines.index("Commands") :]))
    assert registered <= set(named)


@pytest.mark.parametrize("arguments", [["-h"], ["data", "agreement", "-h"]])
def test_help_shows_no_type_after_flags(rlhfctl, arguments):
    shown = rlhfctl(*arguments)
    assert shown.returncode == 0
    assert "--help" in shown.stdout
    assert "bool" not in shown.stdout


def test_help_has_commands_in_groups(rlhfctl):
    shown = rlhfctl("--help").stdout
    panels = re.findall(r"╭─ (.+?) ─", shown)
    assert panels == ["Options", BEFORE, TRAINING, RESULTS]


COMMON = ("--run", "--runs-dir", "--set", "--seed", "--json", "--quiet", "--debug")
OWN = {
    "sft": ("--model", "--dataset", "--learning-rate", "--epochs"),
    "train-rm": ("--dataset", "--sft", "--learning-rate", "--epochs"),
    "ppo": ("--beta", "--episodes", "--learning-rate", "--sft", "--rm"),
    "eval": ("--prompts", "--sft", "--rm", "--ppo", "--export-pairs", "--import-votes"),
    "run": ("--model",),
    "show": (),
    "validate": (),
}


RUNNING = (
    *("--force", "--launch", "--allow-change", "--allow-world-size-change"),
    *("--allow-code", "--allow-remote-code", "--offline"),
)


@pytest.mark.parametrize("command", OWN)
def test_the_options_are_these_and_no_others(rlhfctl, command):
    shown = rlhfctl(command, "--help").stdout
    offered = set(re.findall(r"│ (--[a-z-]+)", shown))
    running = () if command in {"show", "validate"} else RUNNING
    assert offered == {*COMMON, *OWN[command], *running, "--help"}


def test_the_version(rlhfctl):
    assert rlhfctl("--version").stdout == f"rlhfctl {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ppo", "--bata", "1"], "did you mean --beta"),
        (["trainrm"], "Did you mean 'train-rm'"),
        (["ppo", "--beta"], "--beta"),
        (["ppo", "a.yaml", "b.yaml"], "b.yaml"),
    ],
)
def test_a_mistyped_command_line_ends_in_2_with_a_suggestion(rlhfctl, arguments, said):
    done = rlhfctl(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_usage_error_as_json(rlhfctl):
    done = rlhfctl("ppo", "--bata", "1", "--json")
    assert done.returncode == 2
    (error,) = json.loads(done.stdout)["errors"]
    assert "--beta" in error["message"]
