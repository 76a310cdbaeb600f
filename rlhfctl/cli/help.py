"""Help pages: command groups without types after flags, and the page of a bare `rlhfctl`."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from typer.core import TyperArgument, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

BEFORE = "Before a run"
TRAINING = "Training"
RESULTS = "Results"
"""Panels of commands, in the order of their first commands."""

HELP_NAMES = {"help_option_names": ["--help", "-h"]}
"""Context settings of the command line: names of the help option."""

QUICK_START = (
    ("rlhfctl run base", "the whole pipeline on a small model and a CPU"),
    ("rlhfctl init mine.yaml", "write a recipe for your model and data"),
    ("rlhfctl validate mine.yaml", "check it, without loading weights"),
    ("rlhfctl run mine.yaml", "train, evaluate, write the report"),
)
_WIDTH = 80


def example(command: str) -> str:
    """Return the last line of a command's help."""
    return f"Example: {command}"


class Group(TyperGroup):
    """A command group whose help shows no type after flags and arguments."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name, or None."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_types(command.get_params(ctx))
        return command

    def get_params(self, ctx: Any) -> Any:
        """Return the group's own options."""
        return _without_types(super().get_params(ctx))


def _without_types(parameters: Any) -> Any:
    """Leave out types that Typer would print: ``<bool>`` of a flag, ``<path>`` after ``RECIPE``."""
    for parameter in parameters:
        if getattr(parameter, "is_bool_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
        if isinstance(parameter, TyperArgument) and parameter.metavar:
            repeatable = parameter.nargs == -1
            parameter.__dict__["display_type_rich"] = _repeatable if repeatable else _no_type
    return parameters


def _no_type(ctx: Any) -> None:
    """Return no type, in place of `TyperArgument.display_type_rich`."""


def _repeatable(ctx: Any) -> str:
    """Return the mark of an argument that may be given several times, in place of its type."""
    del ctx
    return "..."


def overview(summary: str, commands: Iterable[Any]) -> str:
    """Return the page of a bare `rlhfctl`: a quick start, and the commands by panel.

    Args:
        summary: What the program does, in a sentence.
        commands: Typer's commands, in the order of the help page.
    """
    panels: dict[str, list[str]] = {}
    for command in commands:
        if not command.hidden:
            panels.setdefault(command.rich_help_panel or "Others", []).append(str(command.name))
    width = max(len(line) for line, _ in QUICK_START)
    start = [f"  {line.ljust(width)}   {what}" for line, what in QUICK_START]
    indent = max(map(len, panels)) + 5
    groups = [
        textwrap.fill(
            f"  {panel}".ljust(indent) + ", ".join(names),
            width=_WIDTH,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        for panel, names in panels.items()
    ]
    return "\n".join(
        [
            *(textwrap.fill(summary, _WIDTH), "", "Quick start", *start),
            *("", "Commands", *groups, ""),
            "rlhfctl -h describes each command, rlhfctl COMMAND -h one with its options.",
        ]
    )
