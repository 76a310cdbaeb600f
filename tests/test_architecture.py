"""The floors: imports run downwards only; and what no file of the project may contain.

The checks work on sources given as text, so the second half of this file can show that each fails.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from rlhfctl.stage_table import EVALUATION, REWARD_MODEL, STAGES

ROOT = Path(__file__).parents[1]
PACKAGE = "rlhfctl"

# Room -> the rooms it may import, itself aside. A room is a folder or a module of the package.
FLOORS: dict[str, set[str]] = {
    "__main__": {"cli", "errors"},
    "cli": {
        *("pipeline", "preflight", "sweep", "human_votes", "evaluation", "report", "results"),
        *("console", "recipe", "run", "stage_table", "errors"),
    },
    "sweep": {
        *("pipeline", "evaluation", "report", "results"),
        *("recipe", "run", "stage_table", "errors"),
    },
    "human_votes": {"evaluation", "report", "results", "run", "stage_table", "errors"},
    "pipeline": {"results", "recipe", "run", "stage_table", "errors"},
    "preflight": {"models", "data", "results", "recipe", "run", "stage_table", "errors"},
    "stages": {
        *("ppo", "evaluation", "models", "data", "world", "results"),
        *("maths", "recipe", "run", "stage_table", "errors"),
    },
    "report": {"results", "run", "stage_table", "errors"},
    "evaluation": {"results", "data", "maths", "run", "errors"},
    "ppo": {"maths", "run", "errors"},
    "models": {"world", "recipe", "maths", "errors"},
    "data": {"world", "recipe", "maths", "errors"},
    "world": {"recipe", "maths", "errors"},
    "console": {"results", "run", "stage_table", "errors"},
    "recipe": {"results", "stage_table", "errors"},
    "run": {"results", "stage_table", "errors"},
    "results": {"errors"},
    "maths": set(),
    "stage_table": set(),
    "errors": set(),
}
SHARED = "shared"
"""The one folder of `stages` that the others may import."""

# On the way to `--help`: these rooms load none of the slow libraries before a command needs them.
QUICK_ROOMS = {
    "__main__",
    "human_votes",
    "cli",
    "console",
    "pipeline",
    "preflight",
    "recipe",
    "results",
    "run",
    "stage_table",
    "errors",
}
SLOW_LIBRARIES = {
    *("accelerate", "bitsandbytes", "datasets", "matplotlib", "numpy", "pandas", "peft"),
    *("pyarrow", "scipy", "tokenizers", "torch", "transformers", "trl"),
}

STAGE_WORDS = {word for stage in STAGES for word in (stage.name, stage.command)}
# A dict of `sft` and `ppo` may be about policies; one with these words is about stages.
TELLING_STAGE_WORDS = {REWARD_MODEL.name, REWARD_MODEL.command, EVALUATION.name}
MOST_LINES_OF_A_FILE = 450
MOST_LINES_OF_A_FUNCTION = 80


def imported_names(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yield the absolute dotted names that an import statement asks for."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = module.split(".")
        kept = len(parts) - node.level + int(is_package) if node.level else 0
        base = ".".join([*parts[:kept], *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def all_imports(tree: ast.Module, module: str, is_package: bool = False) -> list[tuple[int, str]]:
    """Line and name of every import, those inside functions and for type checkers included."""
    return [
        (node.lineno, name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported_names(node, module, is_package)
    ]


def imports_at_load(
    tree: ast.Module, module: str, is_package: bool = False
) -> list[tuple[int, str]]:
    """Line and name of the imports that run when the module is loaded."""
    found: list[tuple[int, str]] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [(node.lineno, name) for name in imported_names(node, module, is_package)]
        waiting.extend(ast.iter_child_nodes(node))
    return sorted(found)


def floor_complaints(module: str, tree: ast.Module, is_package: bool = False) -> list[str]:
    """Imports of a room that stands above or beside, and of one stage by another."""
    room, *rest = module.split(".")[1:] or [""]
    complaints = []
    for line, name in all_imports(tree, module, is_package):
        target = name.split(".")
        if target[0] != PACKAGE or len(target) < 2:
            continue
        other = target[1]
        if not room:
            complaints.append(f"{module}:{line}: the package's root imports {name}")
        elif room not in FLOORS:
            complaints.append(f"{module}: no floor is set for this room")
        elif other in FLOORS and other != room and other not in FLOORS[room]:
            complaints.append(f"{module}:{line}: {room} may not import {other}")
        elif other == room == "stages" and rest and target[2:3] not in ([SHARED], rest[:1]):
            complaints.append(f"{module}:{line}: {rest[0]} may import stages.{SHARED} only")
    return complaints


def slow_import_complaints(module: str, tree: ast.Module, is_package: bool = False) -> list[str]:
    """Slow libraries that a module on the way to `--help` loads at once."""
    if module.split(".")[1:2] and module.split(".")[1] not in QUICK_ROOMS:
        return []
    return [
        f"{module}:{line}: {name} is loaded on the way to --help"
        for line, name in imports_at_load(tree, module, is_package)
        if name.split(".")[0] in SLOW_LIBRARIES
    ]


def circle_complaints(modules: Mapping[str, ast.Module]) -> list[str]:
    """Modules that need one another to load."""
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        names = [name for _, name in imports_at_load(tree, module, is_package=_is_package(module))]
        known = {n if n in modules else n.rpartition(".")[0] for n in names}
        graph[module] = {name for name in known if name in modules and name != module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return ["modules import one another: " + " <- ".join(circle.args[1])]
    return []


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


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_package(module: str) -> bool:
    return (ROOT / Path(*module.split(".")) / "__init__.py").is_file()


PACKAGE_FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
ALL_FILES = [
    *PACKAGE_FILES,
    *(
        path
        for folder in ("scripts", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_imports_run_downwards_only():
    complaints = []
    for path in PACKAGE_FILES:
        module = _module_name(path)
        complaints += floor_complaints(module, _parsed(path), path.name == "__init__.py")
    assert not complaints, "\n".join(complaints)


def test_nothing_slow_is_loaded_on_the_way_to_help():
    complaints = []
    for path in PACKAGE_FILES:
        module = _module_name(path)
        complaints += slow_import_complaints(module, _parsed(path), path.name == "__init__.py")
    assert not complaints, "\n".join(complaints)


def test_no_modules_import_one_another():
    assert not circle_complaints({_module_name(path): _parsed(path) for path in PACKAGE_FILES})


def test_files_and_functions_stay_small():
    complaints = []
    for path in ALL_FILES:
        name = str(path.relative_to(ROOT))
        complaints += size_complaints(name, path.read_text(encoding="utf-8"), _parsed(path))
    assert not complaints, "\n".join(complaints)


def test_nothing_unsafe_is_written():
    complaints = []
    for path in ALL_FILES:
        complaints += habit_complaints(str(path.relative_to(ROOT)), _parsed(path))
    assert not complaints, "\n".join(complaints)


def test_tables_of_stages_are_in_the_stage_table_only():
    complaints: dict[str, list[str]] = {}
    for path in PACKAGE_FILES:
        name = path.relative_to(ROOT).as_posix()
        if path.name != "stage_table.py" and (hits := stage_table_complaints(name, _parsed(path))):
            complaints[name] = hits
    assert not complaints, "\n".join(hit for hits in complaints.values() for hit in hits)


def test_each_file_name_of_a_run_is_a_literal_once():
    sources = [ROOT / PACKAGE / "run" / name for name in ("directory.py", "files.py")]
    names = {name for path in sources for name in file_names(_parsed(path))}
    assert {"metrics.json", "recipe.yaml", "checkpoints"} <= names
    complaints = []
    for path in PACKAGE_FILES:
        if path not in sources:
            complaints += file_name_complaints(str(path.relative_to(ROOT)), _parsed(path), names)
    assert not complaints, "\n".join(complaints)


def test_every_room_has_its_floor():
    rooms = {
        path.stem
        for path in (ROOT / PACKAGE).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert rooms - {"__init__"} <= set(FLOORS)


def test_the_floors_themselves_have_no_circle():
    TopologicalSorter(FLOORS).prepare()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlhfctl.maths.kl", "from rlhfctl.errors import DataError"),
        ("rlhfctl.maths.kl", "from ..errors import DataError"),
        ("rlhfctl.run.files", "import rlhfctl.recipe.schema"),
        ("rlhfctl.run.files", "from rlhfctl import recipe"),
        ("rlhfctl.ppo.trainer", "def f():\n    from rlhfctl.models import roles"),
        ("rlhfctl.report.page", "if TYPE_CHECKING:\n    from rlhfctl.console import safe"),
        ("rlhfctl.pipeline", "from rlhfctl.stages import sft"),
        ("rlhfctl.stages.ppo.stage", "from rlhfctl.stages import sft"),
        ("rlhfctl.stages.ppo.stage", "from .. import reward_model"),
        ("rlhfctl.stages.ppo.held_out_set", "from rlhfctl.stages.evaluation import context"),
        ("rlhfctl.stages.ppo.stage", "from rlhfctl.stages.evaluation.stage import run"),
        ("rlhfctl.stages.shared.gold", "from rlhfctl.stages.sft.stage import run"),
        ("rlhfctl.attic", "from rlhfctl.errors import DataError"),
        ("rlhfctl", "from rlhfctl.errors import DataError"),
    ],
)
def test_an_import_upwards_is_found(module, source):
    assert floor_complaints(module, ast.parse(source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlhfctl.maths.kl", "import torch\nfrom rlhfctl.maths.masking import mean"),
        ("rlhfctl.maths.kl", "from .masking import mean"),
        (
            "rlhfctl.stages.ppo.stage",
            "from rlhfctl.stages.shared import gold\nfrom rlhfctl.stages.ppo import held_out_set\nimport rlhfctl.ppo.trainer",
        ),
        ("rlhfctl.stages.ppo.stage", "from rlhfctl.ppo import rollout"),
        ("rlhfctl.run.manifest", "from rlhfctl import __version__"),
        ("rlhfctl.cli.app", "from rlhfctl.report.page import render"),
    ],
)
def test_an_import_downwards_is_allowed(module, source):
    assert floor_complaints(module, ast.parse(source)) == []


def test_a_relative_import_in_a_package_is_read_from_the_package():
    tree = ast.parse("from . import kl\nfrom .. import run")
    assert [name for _, name in all_imports(tree, "rlhfctl.maths", is_package=True)] == [
        "rlhfctl.maths.kl",
        "rlhfctl.run",
    ]
    assert floor_complaints("rlhfctl.maths", tree, is_package=True)


def test_a_slow_library_counts_only_where_it_is_loaded_at_once():
    module = "rlhfctl.cli.app"
    assert slow_import_complaints(module, ast.parse("from torch import nn"))
    assert slow_import_complaints(
        module, ast.parse("try:\n    import trl\nexcept OSError:\n    x = 1")
    )
    assert not slow_import_complaints(module, ast.parse("def f():\n    import torch"))
    assert not slow_import_complaints(module, ast.parse("if TYPE_CHECKING:\n    import torch"))
    assert not slow_import_complaints("rlhfctl.ppo.trainer", ast.parse("import torch"))


def test_a_circle_is_found():
    first, second = "rlhfctl.maths.first", "rlhfctl.maths.second"
    there = ast.parse("from rlhfctl.maths.second import f")
    back = ast.parse("from rlhfctl.maths import first")
    later = ast.parse("def g():\n    from rlhfctl.maths import first")
    assert circle_complaints({first: there, second: back})
    assert not circle_complaints({first: there, second: later})


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
