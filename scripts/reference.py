"""Generate the pages of docs/reference from the code that they describe."""

from __future__ import annotations

import enum
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer.main

from rlhfctl.cli.app import app
from rlhfctl.errors import EXIT_CODE_MEANINGS
from rlhfctl.recipe.base import Section
from rlhfctl.recipe.keys import section_of
from rlhfctl.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"

_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
_LONGEST_DEFAULT = 60


def exit_codes_page() -> str:
    """Render the exit codes of all commands as one Markdown table."""
    rows = [[str(int(code)), meaning] for code, meaning in EXIT_CODE_MEANINGS.items()]
    introduction = ["# Exit codes", "", "Every command ends with one of these exit codes.", ""]
    return _page([*introduction, *_table(["Code", "Meaning"], rows)])


def recipe_page() -> str:
    """Render every recipe key with its type, default and description."""
    lines = [
        "# Recipe keys",
        "",
        "A key that a recipe leaves out has the default shown here. `rlhfctl show RECIPE` prints the",
        "resolved value of every key and where it was set; `rlhfctl validate RECIPE` checks a recipe.",
        "A value of another type, an unknown key or a duplicate key is an error.",
    ]
    for path, section in _sections(Recipe, ""):
        lines += ["", *_section_lines(path, section)]
    return _page(lines)


def cli_page() -> str:
    """Render every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        "`rlhfctl COMMAND --help` prints the same. See [exit codes](exit-codes.md) for how a command",
        "ends and [recipe keys](recipe.md) for what `--set` can override.",
    ]
    for name, command in _commands(typer.main.get_command(app), "rlhfctl"):
        lines += ["", f"## {name}", "", *_help_text(command), *_parameter_lines(command)]
        lines += ["", *_example_lines(command)] if command.epilog else []
    return _page(lines)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "exit-codes.md": exit_codes_page,
    "recipe.md": recipe_page,
}


def _sections(section: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    """Yield the dotted key and class of a section and of every section below it."""
    yield path, section
    for key, information in section.model_fields.items():
        inner = section_of(information.annotation) or _item_section(information.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{key}" if path else key)


def _item_section(annotation: Any) -> type[Section] | None:
    """Return the section type of a list's items, or None for other types."""
    return section_of(get_args(annotation)[0]) if get_origin(annotation) is list else None


def _section_lines(path: str, section: type[Section]) -> list[str]:
    schema = section.model_json_schema()
    rows = []
    for key, information in section.model_fields.items():
        anchor = (f"{path}.{key}" if path else key).replace(".", "").lower()
        description = information.description or ""
        if section_of(information.annotation) is not None:
            rows.append([f"`{key}`", "section", _nested_default(information), _see(anchor)])
            continue
        if _item_section(information.annotation) is not None:
            description = f"{description} {_see(anchor)}".strip()
        default = _default(information)
        kind = _type_of(schema["properties"][key], schema.get("$defs", {}))
        rows.append([f"`{key}`", kind, default, description])
    heading = f"## {path}" if path else "## Top level"
    introduction = inspect.getdoc(section) or ""
    table = _table(["Key", "Type", "Default", "Description"], rows)
    return [heading, "", *introduction.splitlines(), "", *table]


def _see(anchor: str) -> str:
    return f"See [below](#{anchor})."


def _nested_default(information: Any) -> str:
    if information.is_required():
        return "required"
    default = information.get_default(call_default_factory=True)
    return "null" if default is None else "its own defaults"


def _default(information: Any) -> str:
    if information.is_required():
        return "required"
    default = information.get_default(call_default_factory=True)
    if isinstance(default, list):
        items = [item.model_dump() if isinstance(item, Section) else item for item in default]
        default = [_without_defaults(item) for item in items]
    text = json.dumps(default, ensure_ascii=False).strip('"')
    if len(text) > _LONGEST_DEFAULT:
        return "a built-in text"
    return f"`{text}`" if text else '`""`'


def _without_defaults(item: Any) -> Any:
    """Return a reward source by its name alone, other items as they are."""
    return item["source"] if isinstance(item, dict) and "source" in item else item


def _type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a JSON schema's type in words, with its bounds."""
    if "anyOf" in schema:
        return " or ".join(_type_of(choice, definitions) for choice in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        choices = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{choice}`" for choice in choices)
    if "$ref" in schema:
        return "section"
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"list of {_type_of(schema['items'], definitions)}"
    if kind == "object":
        return f"map of key to {_type_of(schema['additionalProperties'], definitions)}"
    words = {"string": "text", "boolean": "true or false", "number": "number"}
    bounds = [f"{word} {schema[name]:g}" for name, word in _BOUNDS.items() if name in schema]
    return ", ".join([words.get(kind, kind), *bounds])


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the full name and the command of everything below a command group."""
    for key, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{name} {key}")
    if not hasattr(command, "commands"):
        yield name, command


def _help_text(command: Any) -> list[str]:
    return [*inspect.cleandoc(command.help or "").splitlines(), ""]


def _example_lines(command: Any) -> list[str]:
    """Return the example at the end of a command's help as a code block."""
    return ["```", command.epilog.removeprefix("Example: "), "```"]


def _parameter_lines(command: Any) -> list[str]:
    arguments: list[list[str]] = []
    options: list[list[str]] = []
    for parameter in command.params:
        is_option = parameter.opts[0].startswith("-")
        name = parameter.opts[0] if is_option else parameter.metavar
        value = f"{name} {_value_name(parameter)}".strip() if is_option else name
        short = [alias for alias in parameter.opts[1:] if is_option]
        value = ", ".join([value, *short])
        rows = options if is_option else arguments
        rows.append([f"`{value}`", f"{parameter.help or ''}{_default_words(parameter)}"])
    lines = _table(["Argument", "Description"], arguments) if arguments else []
    if arguments and options:
        lines.append("")
    return [*lines, *(_table(["Option", "Description"], options) if options else [])]


def _value_name(parameter: Any) -> str:
    """Return the name of an option's value; empty for a flag."""
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = parameter.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "[" + "|".join(choice.value for choice in annotation) + "]"
    return ""


def _default_words(parameter: Any) -> str:
    default = parameter.default
    if isinstance(parameter.show_default, str):
        return f" Default: {parameter.show_default}."
    if default in (None, False) or not parameter.show_default:
        return ""
    shown = default.value if isinstance(default, enum.Enum) else default
    return f" Default: `{shown}`."


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table, a line per row."""
    lines = [header, ["---"] * len(header)]
    lines += [[_cell(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(lines: list[str]) -> str:
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REFERENCE
    for page, render in PAGES.items():
        (folder / page).write_text(render(), encoding="utf-8")
