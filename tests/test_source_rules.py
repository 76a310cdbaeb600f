"""Rules of the source: sizes, unsafe calls, tables of stages, file names of a run.

The checks work on sources given as text, so the second half of this file can show that each fails.
"""

import ast
from collections.abc import Iterator

import pytest

from rlhfctl.stage_table import EVALUATION, REWARD_MODEL, STAGES
from tests.source_files import ALL_FILES, PACKAGE, PACKAGE_FILES, ROOT, all_imports, parsed

STAGE_WORDS = {word for stage in STAGES for word in (stage.name, stage.command)}


# A dict of `sft` and `ppo` may be about policies; one with these words is about stages.
TELLING_STAGE_WORDS = {REWARD_MODEL.name, REWARD_MODEL.command, EVALUATION.name}


MOST_LINES_OF_A_FILE = 450


MOST_LINES_OF_A_FUNCTION = 80


def size_complaints(name: str, source: str, tree: ast.Module) -> list[str]:
    """Files and functions too long to be one idea, or to be seen at once."""
    lines = len(source.splitlines())
    complaints = [f"{name}: {lines} lines"] if lines > MOST_LINES_OF_A_FILE else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_LINES_OF_A_FUNCTION:
                complaints.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    return complaints


def stage_table_complaints(name: str, tree: ast.Module) -> list[str]:
    """Dict literals keyed by stages or their commands, which belong in `stage_table.py`."""
    complaints = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if len(keys & STAGE_WORDS) >= 2 and keys & TELLING_STAGE_WORDS:
                complaints.append(f"{name}:{node.lineno}: a table of stages")
    return complaints


def file_names(tree: ast.Module) -> set[str]:
    """Values of the module's upper-case text constants: names of files and folders of a run."""
    return {
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and ast.unparse(node.targets[0]).isupper()
    }


def file_name_complaints(name: str, tree: ast.Module, names: set[str]) -> list[str]:
    """File names of a run spelt out, or names of its folders joined to a path."""
    joined = {
        id(node.right)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
    }
    return [
        f"{name}:{node.lineno}: {node.value!r} has a constant"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and (last := node.value.rpartition("/")[2]) in names
        # `best`, `critic` and `judge` are words with other meanings, too.
        and ("." in last or id(node) in joined)
    ]


def habit_complaints(name: str, tree: ast.Module) -> list[str]:
    """Return forbidden constructs: unsafe loading, shells, swallowed errors, the wrong click."""
    complaints = [
        f"{name}:{line}: click is not Typer's; its errors print nothing"
        for line, imported in all_imports(tree, name)
        if imported.split(".")[0] == "click"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            complaints += [f"{name}:{node.lineno}: {fault}" for fault in _call_faults(node)]
        elif isinstance(node, ast.ExceptHandler) and _swallows_everything(node):
            complaints.append(f"{name}:{node.lineno}: swallows every exception")
    return complaints


def _call_faults(call: ast.Call) -> Iterator[str]:
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    called = ast.unparse(call.func)
    if called == "torch.load" and options.get("weights_only", "False") != "True":
        yield "torch.load without weights_only=True runs the file's code"
    if options.get("shell") == "True":
        yield "shell=True runs text as a program"
    if called in {"os.system", "os.popen", "eval", "exec", "pickle.load", "pickle.loads"}:
        yield f"{called} runs what it is given"


def _swallows_everything(handler: ast.ExceptHandler) -> bool:
    broad = handler.type is None or ast.unparse(handler.type) in {"Exception", "BaseException"}
    silent = all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in handler.body
    )
    return broad and silent


def test_files_and_functions_stay_small():
    complaints = []
    for path in ALL_FILES:
        name = str(path.relative_to(ROOT))
        complaints += size_complaints(name, path.read_text(encoding="utf-8"), parsed(path))
    assert not complaints, "\n".join(complaints)


def test_nothing_unsafe_is_written():
    complaints = []
    for path in ALL_FILES:
        complaints += habit_complaints(str(path.relative_to(ROOT)), parsed(path))
    assert not complaints, "\n".join(complaints)


def test_tables_of_stages_are_in_the_stage_table_only():
    complaints: dict[str, list[str]] = {}
    for path in PACKAGE_FILES:
        name = path.relative_to(ROOT).as_posix()
        if path.name != "stage_table.py" and (hits := stage_table_complaints(name, parsed(path))):
            complaints[name] = hits
    assert not complaints, "\n".join(hit for hits in complaints.values() for hit in hits)


def test_each_file_name_of_a_run_is_a_literal_once():
    sources = [ROOT / PACKAGE / "run" / name for name in ("directory.py", "files.py")]
    names = {name for path in sources for name in file_names(parsed(path))}
    assert {"metrics.json", "recipe.yaml", "checkpoints"} <= names
    complaints = []
    for path in PACKAGE_FILES:
        if path not in sources:
            complaints += file_name_complaints(str(path.relative_to(ROOT)), parsed(path), names)
    assert not complaints, "\n".join(complaints)


def test_what_is_too_long_is_found():
    long_function = "def f():\n" + "    x = 1\n" * MOST_LINES_OF_A_FUNCTION
    long_file = "x = 1\n" * (MOST_LINES_OF_A_FILE + 1)
    assert size_complaints("x.py", long_function, ast.parse(long_function))
    assert size_complaints("x.py", long_file, ast.parse(long_file))
    short = "def f():\n" + "    x = 1\n" * (MOST_LINES_OF_A_FUNCTION - 1)
    assert size_complaints("x.py", short, ast.parse(short)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import click",
        "from click.testing import CliRunner",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "pickle.loads(data)",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    ...",
        "for x in y:\n    try:\n        f()\n    except BaseException:\n        continue",
    ],
)
def test_an_unsafe_habit_is_found(source):
    assert habit_complaints("x.py", ast.parse(source))


def test_a_file_name_of_a_run_is_found():
    names = file_names(ast.parse("A_FILE = 'a.json'\nB_FOLDER = 'best'\nother = 'c.json'"))
    assert names == {"a.json", "best"}
    assert file_name_complaints("x.py", ast.parse("open('a.json')"), names)
    assert file_name_complaints("x.py", ast.parse("f'{run}/a.json'"), names)
    assert file_name_complaints("x.py", ast.parse("folder / 'best'"), names)
    assert not file_name_complaints("x.py", ast.parse("metrics['best']"), names)


def test_a_table_of_stages_is_found():
    assert stage_table_complaints("x.py", ast.parse("T = {'sft': 1, 'rm': 2}"))
    assert stage_table_complaints("x.py", ast.parse("T = {'train-rm': 1, 'ppo': 2}"))
    assert stage_table_complaints("x.py", ast.parse("f(x, {**y, 'sft': (), 'eval': ()})"))
    assert not stage_table_complaints("x.py", ast.parse("policies = {'sft': 1, 'ppo': 2}"))
    assert not stage_table_complaints("x.py", ast.parse("{'rm': path}"))
    assert not stage_table_complaints("x.py", ast.parse("{'train': 1, 'eval': 2}"))


@pytest.mark.parametrize(
    "source",
    [
        "import typer",
        "torch.load(path, weights_only=True)",
        "subprocess.run(words)",
        "model.eval()",
        "try:\n    f()\nexcept FileNotFoundError:\n    pass",
        "try:\n    f()\nexcept Exception as error:\n    log(error)",
    ],
)
def test_a_safe_habit_is_allowed(source):
    assert habit_complaints("x.py", ast.parse(source)) == []
