"""docs/explanation/ppo.md is true: the tests it names exist, the keys are in the schema, the defaults are its own."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from rlhfctl.recipe.keys import all_keys
from rlhfctl.recipe.schema import Recipe

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "ppo.md"
NO_TEST = "none:"
KEY = re.compile(r"`([a-z0-9_.]+)`(?: \(([^)]*)\))?")
TEST = re.compile(r"`(tests/[\w/.]+\.py::[\w:]+)`")
ITEMS = dict(zip("ABCDEFGH", (15, 10, 11, 17, 7, 11, 1, 5), strict=True))


def tables(text):
    """Each table's heading row, then its rows, as lists of cells."""
    found: list[tuple[list[str], list[list[str]]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not inside:
            found.append((cells, []))
            inside = True
        elif not set(line) <= set("|-"):
            found[-1][1].append(cells)
    return found


def rows(text):
    """Every row as a dictionary by the heads of its columns."""
    return [dict(zip(head, cells, strict=True)) for head, body in tables(text) for cells in body]


@cache
def names_in(path):
    """Names of a file's tests, those of classes as CLASS::TEST."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + each.name for each in inner if isinstance(each, ast.FunctionDef)}
    return found


def missing_tests(text):
    named = TEST.findall(text)
    return [
        name
        for name in named
        for path, _, test in [name.partition("::")]
        if not (ROOT / path).is_file() or test not in names_in(path)
    ]


def value_of(text):
    words = {"null": None, "true": True, "false": False}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def default_of(key):
    value = Recipe()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def wrong_keys(text):
    known = {".".join(path) for path in all_keys()}
    wrong = []
    for row in rows(text):
        for key, default in KEY.findall(row.get("key", "")):
            if key not in known:
                wrong.append(f"{key} is no key")
            elif default and default_of(key) != value_of(default):
                wrong.append(f"{key} is {default_of(key)!r}, not {default}")
    return wrong


def untested(text):
    """Rows that neither name a test nor say why there is none; those of measurements need none."""
    return [
        row
        for row in rows(text)
        if "variant" not in row
        for cell in [row.get("test", row.get("test here"))]
        if not TEST.search(cell) and not cell.startswith(NO_TEST)
    ]


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


def test_every_test_it_names_exists(page):
    assert missing_tests(page) == []
    assert len(set(TEST.findall(page))) > 80


def test_every_key_it_names_is_in_the_schema_with_the_default_it_gives(page):
    assert wrong_keys(page) == []
    named = [key for row in rows(page) for key in KEY.findall(row.get("key", ""))]
    assert len({key for key, default in named if default}) > 50


def test_every_key_of_the_ppo_section_is_explained(page):
    explained = {key for row in rows(page) for key, _ in KEY.findall(row.get("key", ""))}
    every = {
        ".".join(path) for path in all_keys() if path[0] in {"ppo", "generation"} and len(path) == 2
    }
    housekeeping = {"ppo.episodes", "ppo.samples_per_run"}
    assert every - explained == housekeeping


def test_every_row_names_a_test_or_says_why_there_is_none(page):
    assert untested(page) == []
    assert len(rows(page)) > 150


def test_no_item_of_the_lists_is_left_out(page):
    first = [next(iter(row.values())) for row in rows(page)]
    items = [cell.split()[0] for cell in first if re.match(r"[A-H]\d+ ", cell)]
    assert items == [
        f"{letter}{at}" for letter, count in ITEMS.items() for at in range(1, count + 1)
    ]
    numbers = [int(cell.split()[0]) for cell in first if re.match(r"\d+ ", cell)]
    assert numbers[-44:] == [*range(1, 31), *range(1, 15)]


@pytest.mark.parametrize(
    ("row", "check"),
    [
        ("| a | | `tests/maths/test_kl.py::test_nobody_wrote` |", missing_tests),
        ("| a | | `tests/nowhere.py::test_a` |", missing_tests),
        ("| a | `ppo.betta` (0.05) | none: so |", wrong_keys),
        ("| a | `ppo.beta` (0.06) | none: so |", wrong_keys),
        ("| a | `ppo.kl_controller` (0) | none: so |", wrong_keys),
        ("| a | `ppo.beta` | |", untested),
        ("| a | `ppo.beta` | to do |", untested),
    ],
)
def test_a_false_row_would_be_found(row, check):
    assert check(f"| item | key | test |\n|---|---|---|\n{row}\n")
