"""Checks of a recipe and its data files, without torch or network access."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.errors import DataError, EnvironmentFault, ErrorDetail, UsageError
from rlhfctl.recipe.keys import annotation_at, split_key, suggest
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.console import Terminal
    from rlhfctl.preflight import Finding
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stage_table import Stage


def require_valid_files(
    recipe: Recipe, terminal: Terminal, *, fetch: bool = False
) -> list[Finding]:
    """Check the files and columns a recipe refers to and print warnings.

    Args:
        recipe: The recipe.
        terminal: Receives the warnings.
        fetch: Whether the config of a Hub model may be downloaded, to check it too.

    Raises:
        DataError: Lists every missing or malformed file or column.
        EnvironmentFault: The first error is about a package or a variable of this machine.
    """
    from rlhfctl.preflight import check_files

    findings = check_files(recipe, fetch=fetch)
    _require(findings, terminal)
    return findings


def require_readable_data(recipe: Recipe, stage: Stage, terminal: Terminal) -> None:
    """Check the data sets that one stage reads, before it makes a run folder.

    Raises:
        DataError: Lists every missing or malformed file or column.
    """
    from rlhfctl.preflight import check_stage_data

    errors = [finding for finding in check_stage_data(recipe, stage) if finding.level == "error"]
    _require(errors, terminal)


def require_known_changes(keys: Sequence[str]) -> None:
    """Check that each key of --allow-change is a recipe key, a section, or a stage's result.

    Args:
        keys: Keys as typed; an input that a recipe key names several of ends in ``: NAME``.

    Raises:
        UsageError: One is none of these.
    """
    for key in keys:
        path = split_key(key.partition(":")[0])
        if key not in {stage.name for stage in ALL_STAGES} and annotation_at(path) is None:
            raise UsageError(
                f"--allow-change: there is no recipe key or input {key}", hint=suggest(path)
            )


def _require(findings: list[Finding], terminal: Terminal) -> None:
    _warn(findings, terminal)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        kind = EnvironmentFault if errors[0].fault == "environment" else DataError
        raise kind(
            "\n".join(_line(finding) for finding in errors),
            details=tuple(
                ErrorDetail(finding.what, finding.where, finding.hint) for finding in errors
            ),
        )


def require_usable_model(recipe: Recipe, stage: Stage, terminal: Terminal) -> None:
    """Check by its config, downloaded if necessary, that a stage can use the model.

    Packages that the stage's keys need are looked for, too.

    Raises:
        EnvironmentFault: The model is refused, or a package is missing.
        RecipeError: Sequences are longer than its positions, or it has no modules of the adapters'
            names.
    """
    from rlhfctl.preflight import check_model, check_packages

    packages = [
        finding
        for finding in check_packages(recipe)
        if finding.level == "warning" or stage.declared(finding.where.split(", "))
    ]
    _require([*check_model(recipe, (stage.name,), fetch=True), *packages], terminal)


def _warn(findings: list[Finding], terminal: Terminal) -> None:
    for finding in findings:
        if finding.level == "warning":
            terminal.warn(_line(finding))


def _line(finding: Finding) -> str:
    line = f"{finding.where}: {finding.what}" if finding.where else finding.what
    return f"{line}; {finding.hint}" if finding.hint else line
