"""The field's words: no retired name in an identifier, no docstring that opens as a question."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rlhfctl"

# Retired word -> the word to use; CONTRIBUTING.md has the glossary.
RETIRED = {
    "figures": "metrics",
    "look": "evaluate, evaluation",
    "looks": "evaluations",
    "watch": "HeldOutEvaluator",
    "outlook": "HeldOutSet",
    "stand_in": "true reward",
    "judging": "EvalContext",
    "questions": "PromptSet",
    "trial": "evaluation",
    "ballot": "human votes",
    "ballots": "human votes",
    "together": "distributed errors",
    "chatter": "log capture",
    "workplace": "staging",
    "settle": "recover",
    "intent": "inputs",
    "freshness": "staleness",
    "forms": "report format",
    "wanted": "a noun that says what it holds",
    "complaints": "errors",
    "quicken": "use_fast_cpu_layers",
    "found": "a noun that says what it holds",
    "each": "a noun that says what it holds",
    "at": "a noun that says what it holds",
    "known": "a noun that says what it holds",
    "kept": "a noun that says what it holds",
    "given": "a noun that says what it holds",
    "told": "a noun that says what it holds",
}
# The embedded world asks questions, and words have grammatical forms there; data comes in forms.
PROPER_IN = {"world": {"questions", "forms"}, "data": {"forms"}}
OPENERS = re.compile(r"(What|Who|Whom|How|Whether|Where|When|Why|Which)\b")


def bound_names(tree):
    """Yield line and name of everything that a module defines or assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def retired_names(source, room=""):
    proper = PROPER_IN.get(room, set())
    return [
        f"line {line}: {name}: say {RETIRED[word]}"
        for line, name in bound_names(ast.parse(source))
        if (word := name.strip("_").lower()) in RETIRED and word not in proper
    ]


def question_docstrings(source):
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    ]
    return [text.splitlines()[0] for text in texts if OPENERS.match(text)]


def modules():
    return [
        pytest.param(path, id=path.relative_to(PACKAGE).as_posix())
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


@pytest.mark.parametrize("path", modules())
def test_identifiers_use_the_fields_words(path):
    room = path.relative_to(PACKAGE).parts[0]
    assert retired_names(path.read_text(encoding="utf-8"), room) == []


@pytest.mark.parametrize("path", modules())
def test_docstrings_are_noun_phrases_or_imperatives(path):
    assert question_docstrings(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["found = 1", "def judging(): ...", "def f(at): ...", "class Watch: ...", "x._kept = 1"],
)
def test_a_retired_name_is_detected(source):
    assert retired_names(source)


@pytest.mark.parametrize("source", ["founders = 1", "x.found()", "def f(rows): ...", "found"])
def test_other_names_pass(source):
    assert retired_names(source) == []


def test_a_docstring_that_opens_as_a_question_is_detected():
    assert question_docstrings('"""What a stage is."""')
    assert question_docstrings('def f():\n    """Whether it runs."""')
    assert not question_docstrings('"""Stage table."""')
