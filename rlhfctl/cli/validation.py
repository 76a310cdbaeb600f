"""Checks of a recipe and its data files, without torch or network access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.errors import DataError

if TYPE_CHECKING:
    from rlhfctl.console import Terminal
    from rlhfctl.preflight import Finding
    from rlhfctl.recipe.schema import Recipe


def require_valid_files(recipe: Recipe, terminal: Terminal) -> list[Finding]:
    """Check the files and columns a recipe refers to and print warnings.

    Raises:
        DataError: Lists every missing or malformed file or column.
    """
    from rlhfctl.preflight import check_files

    findings = check_files(recipe)
    for finding in findings:
        if finding.level == "warning":
            terminal.warn(_line(finding))
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        raise DataError("\n".join(_line(finding) for finding in errors))
    return findings


def _line(finding: Finding) -> str:
    line = f"{finding.where}: {finding.what}" if finding.where else finding.what
    return f"{line}; {finding.hint}" if finding.hint else line
