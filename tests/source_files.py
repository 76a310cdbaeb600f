"""The project's source files and their imports, for the tests of its structure."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


PACKAGE = "rlhfctl"


PACKAGE_FILES = sorted((ROOT / PACKAGE).rglob("*.py"))


TEST_FILES = sorted((ROOT / "tests").rglob("*.py"))


ALL_FILES = [
    *PACKAGE_FILES,
    *(
        path
        for folder in ("scripts", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


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
