"""Rules of the source: sizes, unsafe calls, tables of stages, file names of a run.

The checks work on sources given as text, so the second half of this file can show that each fails.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from rlhfctl.stage_table import ALL_STAGES, EVALUATION, REWARD_MODEL
from tests.source_files import (
    ALL_FILES,
    PACKAGE,
    PACKAGE_FILES,
    ROOT,
    TEST_FILES,
    all_imports,
    parsed,
)

STAGE_WORDS = {word for stage in ALL_STAGES for word in (stage.name, stage.command)}


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


TYPED_ROOMS = ("evaluation", "report", "stages", "sweep")
"""Rooms that pass results as dataclasses, not as parsed JSON."""


LOOSE = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, (?:Any|object)\]")


JSON_EDGES = {
    # JSON and page data are written.
    "report/comparison.py:value": "the comparison as JSON",
    "report/html.py:write": "variables of a page's template",
    "report/page.py:_view": "variables of the report's template",
    "report/plots.py:DrawnPlot": "points of a plot, read by the page's script",
    "report/provenance.py:_flattened": "the JSON form of a result, name by name",
    "report/methods.py:value": "the comparison of methods as JSON",
    "report/sweep.py:value": "the sweep as JSON",
    "report/values.py:report": "the report as JSON",
    "report/values.py:_without_prompts": "one line of the report as JSON",
    "stages/ppo/diverged.py:_current_rows": "lines of a file for study",
    "stages/ppo/diverged.py:_numbers": "lines of a file for study",
    "stages/ppo/diverged.py:_rollout_rows": "lines of a file for study",
    "stages/ppo/diverged.py:_texts": "lines of a file for study",
    # JSON and YAML are parsed.
    "report/comparison.py:_keys": "a recipe's YAML, key by key",
    "report/comparison.py:_recipe": "a recipe's YAML",
    "report/sources.py:read_object": "a JSON file before its fields are checked",
    # Requests and results of other programs and libraries.
    "stages/evaluation/lm_eval_harness.py:_evaluate": "output of lm-evaluation-harness",
    "stages/evaluation/lm_eval_harness.py:_example_values": "output of lm-evaluation-harness",
    "stages/evaluation/lm_eval_harness.py:_metrics": "output of lm-evaluation-harness",
    "stages/reward_model/labels.py:LabelCollator.torch_call": "signature of TRL's collator",
    "stages/reward_model/labels.py:LabelTrainer.compute_loss": "signature of TRL's trainer",
    "stages/shared/hf_training.py:MonitorCallback.on_log": "signature of a Transformers callback",
    "stages/shared/hf_training.py:training_arguments": "arguments of a Transformers class",
    "stages/shared/reward_functions.py:UserFunction.start": "arguments of a user's function",
    "stages/shared/timed_calls.py:start_call": "arguments of a user's function",
}
"""Function or class whose signature may have a dictionary of anything, and the reason."""


def loose_signatures(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """Yield the functions, classes and aliases that have a dictionary of anything in their types.

    Of a class, the fields count; variables in functions do not.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
            annotations = [part.annotation for part in arguments] + [node.returns]
            if any(part and LOOSE.search(ast.unparse(part)) for part in annotations):
                yield f"{prefix}{node.name}"
            nested = (part for part in node.body if isinstance(part, ast.FunctionDef))
            yield from loose_signatures(
                ast.Module(list(nested), type_ignores=[]), f"{prefix}{node.name}."
            )
        elif isinstance(node, ast.ClassDef):
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            if any(LOOSE.search(ast.unparse(part.annotation)) for part in fields):
                yield f"{prefix}{node.name}"
            methods = [part for part in node.body if not isinstance(part, ast.AnnAssign)]
            yield from loose_signatures(
                ast.Module(methods, type_ignores=[]), f"{prefix}{node.name}."
            )
        elif isinstance(node, ast.Assign | ast.AnnAssign) and LOOSE.search(ast.unparse(node)):
            yield f"{prefix}{ast.unparse(node).partition(' ')[0]}"
        elif isinstance(node, ast.If):
            yield from loose_signatures(ast.Module(node.body, type_ignores=[]), prefix)


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
    if called in {"json.load", "json.loads"}:
        yield f"{called} fails on deep nesting by RecursionError; use json_text.parse_json"


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
    for path in (*ALL_FILES, *TEST_FILES):
        name = str(path.relative_to(ROOT))
        complaints += size_complaints(name, path.read_text(encoding="utf-8"), parsed(path))
    assert not complaints, "\n".join(complaints)


def test_nothing_unsafe_is_written():
    complaints = []
    for path in ALL_FILES:
        name = str(path.relative_to(ROOT))
        found = habit_complaints(name, parsed(path))
        own = name.startswith(PACKAGE) and not name.endswith("json_text.py")
        complaints += [fault for fault in found if own or "parse_json" not in fault]
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


def test_results_are_dictionaries_at_the_json_edge_only():
    """A signature off the list is a result passed as JSON; an entry without one is out of date."""
    found = {
        f"{path.relative_to(ROOT / PACKAGE).as_posix()}:{name}"
        for room in TYPED_ROOMS
        for path in PACKAGE_FILES
        if path.is_relative_to(ROOT / PACKAGE / room)
        for name in loose_signatures(parsed(path))
    }
    assert sorted(found - JSON_EDGES.keys()) == []
    assert sorted(JSON_EDGES.keys() - found) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def f(x: dict[str, Any]): ...", "f"),
        ("def f() -> list[dict[str, object]]: ...", "f"),
        ("def f(*, x: Mapping[str, Any] | None = None): ...", "f"),
        ("async def f(**x: Mapping[str, Any]): ...", "f"),
        ("class A:\n    def f(self, x: Sequence[Mapping[str, Any]]): ...", "A.f"),
        ("class A:\n    x: dict[str, Any]", "A"),
        ("def f():\n    def g(x: dict[str, Any]): ...", "f.g"),
        ("Metrics = dict[str, Any]", "Metrics"),
        ("if TYPE_CHECKING:\n    Metrics = Mapping[str, object]", "Metrics"),
    ],
)
def test_a_dictionary_of_anything_in_a_signature_is_found(source, name):
    assert list(loose_signatures(ast.parse(source))) == [name]


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: dict[str, float], y: Mapping[str, Estimate]): ...",
        "def f(x: Any) -> list[str]: ...",
        "def f():\n    x: dict[str, Any] = {}",
    ],
)
def test_typed_signatures_and_local_variables_are_allowed(source):
    assert list(loose_signatures(ast.parse(source))) == []


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
