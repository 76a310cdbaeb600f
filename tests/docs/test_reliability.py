"""The page of faults and promises is current, and names tests that exist."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from reliability import PAGE, SAFETY, TRAINING, page

TESTS = Path(__file__).resolve().parents[1]
NAMED = [test for fault in (*TRAINING, *SAFETY) for test in fault.tests]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run scripts/reliability.py"


@pytest.mark.parametrize("named", NAMED)
def test_each_test_exists(named: str) -> None:
    file, function = named.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
