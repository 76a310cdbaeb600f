"""The `migrate` command: a recipe from the files of another tool."""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from rlhfctl.cli.init import create_file, require_new
from rlhfctl.migration import migrate, summary, whole_account
from rlhfctl.recipe.starter import starter_text

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.migration import KeyOutcome, Migration

_SHOWN = "mine.yaml"


def migrate_files(
    files: list[Path], tool: str | None, output: Path | None, terminal: Terminal
) -> None:
    """Write a commented recipe, and say what became of each key of the files.

    Args:
        files: One file per stage at most.
        tool: Name of the tool; None finds it by the keys.
        output: Recipe to write; None prints it.
        terminal: Receives the account.

    Raises:
        UsageError: The output exists, or the files do not belong in one recipe.
        RecipeError: A file is invalid, or configures what rlhfctl does not have.
        DataError: A data set cannot be resolved.
        EnvironmentFault: The output cannot be written.
    """
    if output is not None:
        require_new(output)
    migration = migrate(files, _run_name(output or files[0]), tool)
    text = starter_text(
        *(migration.recipe, "migrate", str(output or _SHOWN)),
        notes=list(whole_account(migration)),
    )
    if output is not None:
        create_file(output, text)
    if terminal.as_json:
        path = None if output is None else str(output)
        terminal.write_json({"path": path, "recipe": text} | _as_json(migration))
        return
    for line in summary(migration):
        for part in _wrapped(line, terminal.console.width):
            terminal.note(part)
    if output is None:
        sys.stdout.write(text)
    else:
        terminal.result(f"wrote {output}; next: rlhfctl validate {output}")


def _wrapped(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.lstrip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _run_name(file: Path) -> str:
    """Return a name for the run: the file's, in the characters that names may have."""
    name = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._")[:64]
    return name if name and name != "latest" else "migrated"


def _as_json(migration: Migration) -> dict[str, Any]:
    return {
        "tool": migration.tool,
        "files": [
            {"path": source.name, "stage": source.stage.name} for source in migration.sources
        ],
        "keys": [_key(one) for source in migration.sources for one in source.outcomes],
        "conflicts": list(migration.conflicts),
        "missing_data": list(migration.missing),
    }


def _key(outcome: KeyOutcome) -> dict[str, Any]:
    return {
        "file": outcome.file,
        "key": outcome.key,
        "became": outcome.kind,
        "recipe_keys": list(outcome.targets),
        "reason": outcome.reason,
    }
