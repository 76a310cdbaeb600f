"""Rooms and floors: imports run downwards only, and nothing slow is loaded on the way to help.

The checks work on sources given as text, so the second half of this file can show that each fails.
"""

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.source_files import PACKAGE, PACKAGE_FILES, ROOT, all_imports, imported_names, parsed

# Room -> the rooms it may import, itself aside. A room is a folder or a module of the package.
FLOORS: dict[str, set[str]] = {
    "__main__": {"cli", "run", "errors"},
    "cli": {
        *("pipeline", "preflight", "sweep", "human_votes", "evaluation", "report", "results"),
        *("export", "sampling", "data_view", "doctor", "downloads", "plan", "migration"),
        *("console", "progress", "recipe", "run", "activity", "stage_table"),
        *("errors", "json_text"),
    },
    "progress": {"console", "activity"},
    "sweep": {
        *("pipeline", "evaluation", "report", "results"),
        *("recipe", "run", "stage_table", "errors", "json_text"),
    },
    "export": {
        *("stages", "report", "pipeline", "models", "data", "results"),
        *("recipe", "run", "stage_table", "errors", "json_text"),
    },
    "sampling": {
        *("stages", "pipeline", "models", "data", "maths"),
        *("recipe", "run", "stage_table", "errors", "json_text"),
    },
    "plan": {
        *("stages", "ppo", "models", "data", "maths"),
        *("recipe", "run", "stage_table", "errors", "json_text"),
    },
    "migration": {"recipe", "stage_table", "errors", "json_text"},
    "human_votes": {"evaluation", "report", "results", "run", "stage_table", "errors", "json_text"},
    "pipeline": {
        *("results", "recipe", "run", "activity", "hub_commits", "stage_table"),
        *("errors", "json_text"),
    },
    "preflight": {
        "models",
        "data",
        "results",
        "recipe",
        "run",
        "stage_table",
        "errors",
        "json_text",
    },
    "doctor": {
        *("downloads", "models", "data", "recipe", "run"),
        *("activity", "stage_table", "errors", "json_text"),
    },
    "downloads": {"models", "data", "recipe", "run", "errors"},
    "data_view": {"models", "data", "results", "recipe", "stage_table", "errors"},
    "stages": {
        *("ppo", "evaluation", "models", "data", "world", "results"),
        *("maths", "recipe", "run", "stage_table", "errors", "json_text"),
    },
    "report": {"results", "run", "stage_table", "errors", "json_text"},
    "evaluation": {"results", "data", "maths", "run", "errors", "json_text"},
    "ppo": {"maths", "run", "activity", "errors", "json_text"},
    "models": {"world", "recipe", "maths", "activity", "hub_commits", "errors", "json_text"},
    "data": {"world", "recipe", "maths", "hub_commits", "errors", "json_text"},
    "world": {"recipe", "maths", "errors", "json_text"},
    "console": {"results", "run", "stage_table", "errors", "json_text"},
    "recipe": {"results", "stage_table", "errors", "json_text"},
    "run": {"results", "stage_table", "errors", "json_text"},
    "results": {"errors", "json_text"},
    "maths": set(),
    "stage_table": set(),
    "activity": set(),
    "hub_commits": set(),
    "errors": set(),
    "json_text": set(),
}


SHARED = "shared"
"""The one folder of `stages` that the others may import."""


# On the way to `--help`: these rooms load none of the slow libraries before a command needs them.
QUICK_ROOMS = {
    "__main__",
    "human_votes",
    "cli",
    "console",
    "activity",
    "pipeline",
    "preflight",
    "data_view",
    "doctor",
    "downloads",
    "hub_commits",
    "migration",
    "progress",
    "recipe",
    "results",
    "run",
    "stage_table",
    "errors",
    "json_text",
}


SLOW_LIBRARIES = {
    *("accelerate", "bitsandbytes", "datasets", "matplotlib", "numpy", "pandas", "peft"),
    *("pyarrow", "scipy", "tokenizers", "torch", "transformers", "trl"),
}


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


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_package(module: str) -> bool:
    return (ROOT / Path(*module.split(".")) / "__init__.py").is_file()


def test_imports_run_downwards_only():
    complaints = []
    for path in PACKAGE_FILES:
        module = _module_name(path)
        complaints += floor_complaints(module, parsed(path), path.name == "__init__.py")
    assert not complaints, "\n".join(complaints)


def test_nothing_slow_is_loaded_on_the_way_to_help():
    complaints = []
    for path in PACKAGE_FILES:
        module = _module_name(path)
        complaints += slow_import_complaints(module, parsed(path), path.name == "__init__.py")
    assert not complaints, "\n".join(complaints)


def test_no_modules_import_one_another():
    assert not circle_complaints({_module_name(path): parsed(path) for path in PACKAGE_FILES})


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
