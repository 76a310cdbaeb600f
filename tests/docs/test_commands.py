"""Every command in README and docs is one that exists, with options and files that exist.

The commands of `RUN` are really run, on the files that a reader would have. The others parse, and
`NOT_RUN` says why they are not run here.
"""

import ast
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import typer.main

from rlhfctl.cli.app import app
from rlhfctl.recipe.keys import annotation_at, split_key
from rlhfctl.recipe.load import shipped_recipe
from tests import forked
from tests.docs.commands import PAGES, Shown, fenced, inline
from tests.migration.examples import write_llamafactory
from tests.source_files import ROOT

RUN = {"init", "migrate", "recipes", "schema", "show", "validate", "data show"}
NOT_RUN = {
    **dict.fromkeys(("run", "sft", "train-rm", "ppo", "eval", "sweep", "dpo", "compare"), "trains"),
    **dict.fromkeys(("sample", "chat", "export"), "needs the models of a finished run"),
    **dict.fromkeys(("report", "watch", "runs list", "runs show"), "needs a run"),
    **dict.fromkeys(("runs diff", "runs rm"), "needs runs"),
    **dict.fromkeys(("push", "fetch"), "needs the Hub"),
    "doctor": "describes this machine",
    "plan": "takes seconds; tests/cli/test_plan.py runs it",
    **dict.fromkeys(("data prepare", "data clean"), "writes to the user's cache"),
    "data duplicates": "takes seconds, and needs an extra",
    "data agreement": "needs labels",
}
READERS_FILES = {
    "mine.yaml": "the reader's recipe",
    "recipes/mine.yaml": "the reader's recipe",
    "bad.yaml": "written out above the command, in part",
    "sft.yaml": "a file of LLaMA-Factory",
    "reward.yaml": "a file of LLaMA-Factory",
    "ppo.yaml": "a file of LLaMA-Factory",
    "demos.jsonl": "the reader's data",
    "pairs.jsonl": "the reader's data",
    "labels.csv": "the reader's labels",
    "prompts.txt": "the reader's prompts",
    "pairs.csv": "exported by the command before",
    "pip.conf": "the reader's settings",
    "ca.pem": "the reader's certificate",
    "llama.cpp": "a checkout of llama.cpp",
}
WRITES = {"--output", "-o", "--plot", "--before", "--repo"}
"""Options whose values are written, or are no files."""
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")
FILE_LIKE = re.compile(r"[\w./-]+\.(ya?ml|jsonl?|csv|txt|conf|pem|jinja|parquet)")

FENCED = [shown for page in PAGES for shown in fenced(page)]
OURS = [shown for shown in FENCED if shown.words[0] == "rlhfctl"]
INLINE = [shown for page in PAGES for shown in inline(page)]


def leaf(words):
    """Return name, command and the other words of a command line, or None where there is none."""
    command, name, rest = typer.main.get_command(app), [], list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        name.append(rest.pop(0))
        command = command.commands[name[-1]]
    return " ".join(name), command, rest


def all_commands(group=None, prefix=""):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def fault(shown):
    """Return what is wrong with a command of rlhfctl; None if it could be run."""
    name, command, rest = leaf(shown.words[1:])
    if not name:
        return "no command"
    try:
        context = command.make_context(name, list(rest))
    except typer.Exit:
        return None  # --help and --version
    except Exception as error:
        return getattr(error, "message", None) or str(error)
    for setting in context.params.get("set_") or ():
        key = setting.partition("=")[0]
        if "=" not in setting or annotation_at(split_key(key)) is None:
            return f"there is no recipe key {key}"
    recipe = context.params.get("recipe")
    if recipe is not None and not is_there(str(recipe), shown):
        return f"there is no recipe {recipe}"
    return missing_file(shown)


def missing_file(shown):
    words = [word for word in shown.words if not word.startswith(("http", "src="))]
    for before, word in itertools.pairwise(words):
        if before not in WRITES and FILE_LIKE.fullmatch(word) and not is_there(word, shown):
            return f"there is no file {word}"
    return None


def is_there(name, shown):
    """Return whether a file is in the repository, is the reader's, or is written on the page."""
    if PLACEHOLDER.fullmatch(name) or name in READERS_FILES or shipped_recipe(name) is not None:
        return True
    return (ROOT / name).exists() or f"> {name}" in shown.text


@pytest.mark.parametrize("shown", OURS, ids=str)
def test_a_command_of_rlhfctl_parses_and_its_files_exist(shown):
    assert fault(shown) is None


@pytest.mark.parametrize("shown", INLINE, ids=str)
def test_a_command_within_a_sentence_has_only_what_exists(shown):
    name, command, rest = leaf(shown.words[1:])
    options = {option for parameter in command.params for option in parameter.opts}
    options |= {"--help", "-h", "--launch"}
    assert name or rest[0] in options or PLACEHOLDER.fullmatch(rest[0])
    assert {word for word in rest if word.startswith("-")} <= options


MAKE = [shown for shown in FENCED if shown.words[0] == "make"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("shown", MAKE, ids=str)
def test_a_target_of_make_exists(shown):
    targets = [word for word in shown.words[1:] if "=" not in word]
    assert set(targets) <= TARGETS


def program(words):
    """Return the file of a Python command, and the words after it."""
    if words[1] == "-m":
        return ROOT / f"{words[2].replace('.', '/')}.py", words[3:]
    return ROOT / words[1], words[2:]


PYTHON = [shown for shown in FENCED if Path(shown.words[0]).name.startswith("python")]
PYTHON = [shown for shown in PYTHON if shown.words[1:2] not in (("-c",), ("-",))]


@pytest.mark.parametrize("shown", PYTHON, ids=str)
def test_a_program_exists_with_its_options(shown):
    path, rest = program(shown.words)
    if shown.words[1] == "-m" and not shown.words[2].startswith(("benchmarks", "scripts")):
        pytest.skip("a module of another package")
    assert path.is_file()
    assert {word for word in rest if word.startswith("--")} <= {*options_in(path)}


def options_in(path):
    """Yield the options in a program's source, and those made of a benchmark's fields."""
    for source in (path, *(ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield f"--{node.target.id.replace('_', '-')}"


def test_every_command_is_run_here_or_says_why_not():
    assert set(all_commands()) == RUN | NOT_RUN.keys()
    assert not RUN & NOT_RUN.keys()


def test_the_pages_are_read():
    assert len(OURS) > 60
    assert len(INLINE) > 40
    assert len(MAKE) > 5
    assert len(PYTHON) > 7


# Rows of a shipped recipe take seconds; the reader's are few.
SLOW = ("data", "show", "base")
RUNNABLE = {
    shown.words: shown
    for shown in OURS
    if leaf(shown.words[1:])[0] in RUN and shown.words[1:4] != SLOW
}


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory):
    """Return a folder with the files that a reader would have."""
    folder = tmp_path_factory.mktemp("reader")
    small = {
        "extends": "base.yaml",
        "name": "mine",
        "data": {kind: {"max_rows": 64} for kind in ("demonstrations", "comparisons", "prompts")},
    }
    (folder / "recipes").mkdir()
    for path in (folder / "mine.yaml", folder / "recipes" / "mine.yaml"):
        path.write_text(json.dumps(small))
    (folder / "bad.yaml").write_text("ppo:\n  bta: 1\n")
    rows = {
        "demos.jsonl": {"prompt": "What is 1 plus 1?", "completion": "Two."},
        "pairs.jsonl": {"prompt": "What is 1 plus 1?", "chosen": "Two.", "rejected": "Three."},
    }
    for name, row in rows.items():
        (folder / name).write_text((json.dumps(row) + "\n") * 3)
    write_llamafactory(folder, "sft", "reward", "ppo")
    return folder


@pytest.mark.parametrize("shown", RUNNABLE.values(), ids=str)
def test_a_cheap_command_runs(shown, readers_folder, tmp_path):
    folder = tmp_path / "reader"
    shutil.copytree(readers_folder, folder)
    name, command, rest = leaf(shown.words[1:])
    context = command.make_context(name, list(rest))
    target = context.params.get("output") or (name == "init" and context.params["file"])
    if target:
        (folder / target).unlink(missing_ok=True)  # the page has the reader's file made here
    done = forked.rlhfctl(folder, shown.words[1:])
    assert done.returncode == (2 if "bad.yaml" in shown.words else 0), done.stderr


def test_a_wrong_command_is_found():
    """The checks fail on what they are for."""
    page = "see `> new.yaml`"
    wrong = {
        "rlhfctl trian base": "no command",
        "rlhfctl run base --lunch": "No such option: --lunch",
        "rlhfctl run base --set ppo.bta=1": "there is no recipe key ppo.bta",
        "rlhfctl run bse": "there is no recipe bse",
        "rlhfctl sample --file prompt.txt": "there is no file prompt.txt",
        "rlhfctl sweep base --jobs many": "valid integer",
    }
    for command, said in wrong.items():
        assert said in str(fault(Shown("page", 1, tuple(command.split()), page))), command
    assert fault(Shown("page", 1, ("rlhfctl", "run", "new.yaml"), page)) is None
