"""The `init` command: write a recipe from a few answers."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rlhfctl.cli.options import RunOptions
from rlhfctl.cli.resolve import choose_recipe, is_run_name
from rlhfctl.cli.validation import require_valid_files
from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.recipe.json_schema import SCHEMA_FILE, schema_text
from rlhfctl.recipe.load import EMBEDDED, load_recipe
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.starter import starter_text

if TYPE_CHECKING:
    from rlhfctl.console import Terminal
    from rlhfctl.recipe.data import DatasetSection

_KINDS = ("demonstrations", "comparisons", "prompts")


@dataclass(frozen=True)
class InitRequest:
    """The options of `init`; None for those that were not given.

    Attributes:
        file: Recipe to write.
        base: Recipe to start from: a file or a shipped name.
        name: Name of the run.
        model: Base model.
        demonstrations: Source of the demonstrations.
        comparisons: Source of the comparisons.
        prompts: Source of the prompts.
    """

    file: Path
    base: Path | None = None
    name: str | None = None
    model: str | None = None
    demonstrations: str | None = None
    comparisons: str | None = None
    prompts: str | None = None


def write_recipe(request: InitRequest, terminal: Terminal) -> None:
    """Write a commented recipe that `validate` accepts; with a terminal, ask what was not given.

    Raises:
        UsageError: The file exists, the name is invalid, or an answer is missing without a terminal.
        RecipeError: The recipe to start from is invalid.
        DataError: A data source is missing or malformed. Nothing is written.
        EnvironmentFault: The file cannot be written.
    """
    require_new(request.file)
    name = _run_name(request)
    base, origin = _base(request.base)
    asks = sys.stdin.isatty() and sys.stderr.isatty() and not terminal.as_json
    model = request.model or base.model.name_or_path
    if asks:
        terminal.note("Data is a file, a folder or a Hub id. Enter takes the value in brackets.")
    if request.model is None and asks:
        model = _ask("Base model: a Hub id, a folder, or embedded", model)
    if request.base is None and model != EMBEDDED:
        base, origin = Recipe(), ""  # base.yaml suits the embedded model only
    sources = _sources(request, base, model, asks=asks)
    recipe = _changed(base, name, model, sources)
    require_valid_files(recipe, terminal)
    schema = _write(request.file, starter_text(recipe, f"init{origin}", str(request.file)))
    if terminal.as_json:
        terminal.write_json({"path": str(request.file), "name": name, "schema_path": str(schema)})
        return
    terminal.result(
        f"wrote {request.file}, and {schema} for editors; next: rlhfctl validate {request.file}"
    )


def require_new(file: Path) -> None:
    """Refuse to write a file that exists.

    Raises:
        UsageError: It exists.
    """
    if file.exists() or file.is_symlink():
        raise UsageError("the file exists already", str(file), "name another file, or remove it")


def _run_name(request: InitRequest) -> str:
    name = request.name or request.file.stem.lower()
    if not is_run_name(name):
        raise UsageError(
            f"{name!r} cannot be the name of a run",
            "--name" if request.name else str(request.file),
            "use up to 64 lowercase letters, digits, dots, dashes and underscores, with --name",
        )
    return name


def _base(base: Path | None) -> tuple[Recipe, str]:
    """Return the recipe to start from, and where it is from as the end of a sentence."""
    choice = choose_recipe(RunOptions(recipe=base or Path("base.yaml")))
    return load_recipe(choice.path).recipe, f" --from {base or 'base'}"


def _sources(request: InitRequest, base: Recipe, model: str, *, asks: bool) -> dict[str, str]:
    """Return the source of each kind of data: an option, an answer, or the base recipe's.

    Raises:
        UsageError: Without a terminal, a source is missing: the embedded world's rows suit the
            embedded model only.
    """
    sources: dict[str, str] = {}
    for kind in _KINDS:
        option: str | None = getattr(request, kind)
        section: DatasetSection = getattr(base.data, kind)
        suits = model == EMBEDDED or not section.is_embedded
        default: str | None = section.title if suits else None
        if default is None and kind == "prompts":
            default = sources.get("demonstrations")
        if option is None and asks:
            option = _ask(_MEANINGS[kind], default)
        if option is None and default is None:
            raise UsageError(
                f"the model {model} needs data of its own, and --{kind} is missing",
                hint=f"add --{kind} FILE, a Hub id or a folder, or start from a recipe with data "
                "by --from",
            )
        sources[kind] = str(option or default)
    return sources


_MEANINGS = {
    "demonstrations": "Demonstrations (prompts with a good response)",
    "comparisons": "Comparisons (prompts with a better and a worse response)",
    "prompts": "Prompts for PPO and the evaluation",
}


def _ask(question: str, default: str | None) -> str:
    answer: str = typer.prompt(question, default=default, err=True)
    return answer.strip()


def _changed(base: Recipe, name: str, model: str, sources: dict[str, str]) -> Recipe:
    """Return the base recipe with another name, model and data.

    A new source takes none of the keys that describe the earlier one, such as its columns.
    """
    values = base.model_dump(mode="json")
    values["name"] = name
    if model != base.model.name_or_path:
        values["model"] |= {"name_or_path": model, "revision": None, "trust_remote_code": False}
    for kind, source in sources.items():
        if source != getattr(base.data, kind).title:
            values["data"][kind] = {"source": source}
    return Recipe.model_validate(values)


def _write(file: Path, text: str) -> Path:
    """Write the recipe, and the schema beside it unless it is there; return the schema's path."""
    schema = file.parent / SCHEMA_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error, file) from error
    create_file(file, text)
    if not os.path.lexists(schema):
        create_file(schema, schema_text())
    return schema


def create_file(path: Path, text: str) -> None:
    """Write a new file.

    Raises:
        UsageError: It exists.
        EnvironmentFault: It cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError("the file exists already", str(path)) from error
    except OSError as error:
        raise _unwritable(error, path) from error


def _unwritable(error: OSError, path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        f"cannot be written: {error.strerror or error}", str(error.filename or path)
    )
