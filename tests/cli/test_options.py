"""Arguments and options of every command: names, value placeholders and defaults."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rlhfctl.cli.app import app

RUN = {"RECIPE", "--run NAME", "--runs-dir DIR = runs", "--set KEY=VALUE ...", "--seed N"}
OUTPUT = {"--json", "--quiet -q", "--debug"}
RECIPE_COMMAND = {*RUN, *OUTPUT}
RUNNING_COMMAND = {
    *RECIPE_COMMAND,
    *("--force", "--allow-code", "--allow-remote-code", "--offline"),
}
STAGE_COMMAND = {
    *RUNNING_COMMAND,
    *("--launch FILE", "--allow-change KEY ...", "--allow-world-size-change"),
}
TRAINING = {"--dataset NAME", "--learning-rate X", "--epochs X"}

FINISHED = {"RUN", "--runs-dir DIR = runs", "--best", "--allow-remote-code", *OUTPUT}
SAMPLING = {"--greedy", "--temperature X", "--max-new-tokens N", "--seed N", "--system TEXT"}
CARD = {"--stage STAGE = ppo", "--merge", "--dtype DTYPE", "--license ID", "--base-model ID"}
DATA = {*(RECIPE_COMMAND - {"--run NAME"})}
OPTIONS = {
    "sft": {*STAGE_COMMAND, *TRAINING, "--model NAME"},
    "train-rm": {*STAGE_COMMAND, *TRAINING, "--sft PATH"},
    "ppo": {
        *STAGE_COMMAND,
        *("--beta X", "--episodes N", "--learning-rate X", "--sft PATH", "--rm PATH"),
    },
    "dpo": {*STAGE_COMMAND, *TRAINING, "--sft PATH", "--beta X"},
    "eval": {
        *STAGE_COMMAND,
        *("--prompts N", "--sft PATH", "--rm PATH", "--ppo PATH"),
        *("--export-pairs FILE", "--import-votes FILE"),
    },
    "run": {*STAGE_COMMAND, "--model NAME"},
    "sweep": {*RUNNING_COMMAND, "--jobs N = 1", "--zip"},
    "compare": {
        *RUNNING_COMMAND,
        *("--methods NAME,... = ppo,rloo,grpo,dpo,best_of_n", "--seeds N = 1"),
        *("--kl X", "--jobs N = 1"),
    },
    "init": {
        *("FILE = mine.yaml", "--from RECIPE", "--name NAME", "--model NAME"),
        *("--demonstrations SOURCE", "--comparisons SOURCE", "--prompts SOURCE"),
        *OUTPUT,
    },
    "migrate": {"FILE ... required", "--from TOOL", "--output -o FILE", *OUTPUT},
    "recipes": {"NAME", *OUTPUT},
    "schema": OUTPUT,
    "doctor": {"RECIPE", "--runs-dir DIR = runs", "--set KEY=VALUE ...", "--offline", *OUTPUT},
    "fetch": {*(RECIPE_COMMAND - {"--run NAME", "--seed N"}), "--dry-run"},
    "show": RECIPE_COMMAND,
    "validate": RECIPE_COMMAND,
    "plan": {
        *RECIPE_COMMAND,
        *("--gpu GPU", "--tflops X", "--probe", "--longest"),
        *("--allow-remote-code", "--offline"),
    },
    "report": {
        *("RUN ...", "--runs-dir DIR = runs", "--format = html", "--output FILE"),
        *OUTPUT,
    },
    "sample": {
        *FINISHED,
        *SAMPLING,
        *("--stage STAGE ...", "--prompt TEXT ...", "--file FILE", "--form FORM = auto"),
    },
    "chat": {*FINISHED, *SAMPLING, "--stage STAGE ..."},
    "export": {
        *(*FINISHED, *CARD),
        *("--output DIR", "--gguf TYPE", "--ollama", "--converter FILE"),
    },
    "push": {*FINISHED, *CARD, "--repo OWNER/NAME", "--public", "--dry-run"},
    "data show": {*DATA, "--stage sft|rm|ppo = sft", "--rows -n N = 5", "--full"},
    "data prepare": DATA,
    "data duplicates": {*DATA, "--threshold X", "--rows -n N = 3"},
    "data clean": {"--unused DAYS", *OUTPUT},
    "watch": {"RUN", "--runs-dir DIR = runs", "--once", *OUTPUT},
    "runs list": {"--runs-dir DIR = runs", *OUTPUT},
    "runs show": {"RUN", "--runs-dir DIR = runs", *OUTPUT},
    "runs diff": {"RUN required", "--runs-dir DIR = runs", "--all", *OUTPUT},
    "runs rm": {"RUN ... required", "--runs-dir DIR = runs", "--yes", *OUTPUT},
    "data agreement": {"FILE required", "--columns NAME=COLUMN ...", *OUTPUT},
}


def commands(group, prefix=""):
    """Yield each leaf command with its name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def described(parameter):
    is_option = parameter.opts[0].startswith("--")
    parts = [*parameter.opts] if is_option else []
    parts += [parameter.metavar] if parameter.metavar else []
    repeatable = parameter.multiple if is_option else parameter.nargs == -1
    parts += ["..."] if repeatable else []
    parts += ["required"] if parameter.required else []
    default = parameter.default
    if isinstance(default, Path | str | int) and not isinstance(default, bool):
        parts += ["=", str(default)]
    return " ".join(parts)


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands():
    assert set(COMMANDS) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_arguments_and_options_of_a_command(name):
    assert {described(parameter) for parameter in COMMANDS[name].params} == OPTIONS[name]


@pytest.mark.parametrize("name", [name for name in OPTIONS if OPTIONS[name] >= RECIPE_COMMAND])
def test_shared_options_are_in_panels_of_their_own(name):
    panels = {
        parameter.opts[0]: parameter.rich_help_panel
        for parameter in COMMANDS[name].params
        if parameter.rich_help_panel
    }
    run = {"--run", "--runs-dir", "--set", "--seed"}
    run &= {option.split()[0] for option in OPTIONS[name]}
    run |= {"--force", "--allow-code", "--allow-remote-code", "--offline"} & OPTIONS[name]
    if "--launch FILE" in OPTIONS[name]:
        run |= {"--launch", "--allow-change", "--allow-world-size-change"}
    output = {"--json", "--quiet", "--debug"}
    assert panels == {**dict.fromkeys(run, "Run"), **dict.fromkeys(output, "Output")}


@pytest.mark.parametrize("name", OPTIONS)
def test_help_ends_with_an_example_that_parses(name):
    """Options and arguments are accepted; the files of the example need not exist."""
    command = COMMANDS[name]
    program, *words = shlex.split(command.epilog.removeprefix("Example: ").partition(" >")[0])
    assert [program, *words[: len(name.split())]] == ["rlhfctl", *name.split()]
    command.make_context(name, words[len(name.split()) :], resilient_parsing=False)
    assert len(command.epilog) <= 78


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_overrides_the_recipe_or_the_run_names_its_default(name):
    silent = {"--set", "--allow-change", "--launch", "--export-pairs", "--import-votes"}
    silent |= {"--columns", "--output", "--prompt", "--file", "--system", "--gguf"}
    silent |= {"--converter", "--base-model", "--repo"}
    for parameter in COMMANDS[name].params:
        flag = parameter.opts[0]
        if flag.startswith("--") and not parameter.is_flag and flag not in silent:
            assert isinstance(parameter.show_default, str) or parameter.default is not None, flag


@pytest.mark.parametrize("name", ["report", "sft"])
def test_help_shows_no_types_of_python(name):
    page = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "100"}).output
    assert not re.search(r"<(bool|str|path|list)", page)
    assert ("RUN      ...  Run names" in page) == (name == "report")
