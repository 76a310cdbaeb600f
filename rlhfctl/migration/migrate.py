"""A recipe from the files of another tool, with what became of each of their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rlhfctl.errors import ErrorDetail, RecipeError, UsageError
from rlhfctl.migration import axolotl, llamafactory
from rlhfctl.migration.tables import TOOLS, key_table
from rlhfctl.migration.translate import refusals, translated
from rlhfctl.recipe import strict_yaml
from rlhfctl.recipe.error_messages import sentences
from rlhfctl.recipe.mixture_lists import DATA_KINDS
from rlhfctl.recipe.schema import Recipe
from rlhfctl.stage_table import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.migration.outcomes import Setting, SourceFile
    from rlhfctl.migration.tables import KeyTable

_WORDS = {"yes": True, "on": True, "no": False, "off": False}
"""Text that YAML 1.1, which both tools read, takes for a boolean."""


@dataclass(frozen=True)
class Migration:
    """A migrated recipe.

    Attributes:
        tool: Title of the tool that the files are of.
        recipe: The recipe.
        sources: The files, in the order of their stages.
        conflicts: Sentences on recipe keys that files or keys set to different values.
        missing: Kinds of data that no file names, which have the embedded world's rows.
    """

    tool: str
    recipe: Recipe
    sources: tuple[SourceFile, ...]
    conflicts: tuple[str, ...]
    missing: tuple[str, ...]


def migrate(files: Sequence[Path], name: str, tool: str | None = None) -> Migration:
    """Merge files of another tool into one recipe.

    Args:
        files: One file per stage at most.
        name: Name of the run.
        tool: One of `TOOLS`; None finds it by the keys.

    Raises:
        UsageError: The tool is unknown, or two files configure one stage or different bases.
        RecipeError: A file cannot be read, or has values that no recipe can have.
        DataError: A data set cannot be resolved.
    """
    documents = {str(file): _values(file) for file in files}
    tool = tool or _tool_of(documents)
    if tool not in TOOLS:
        raise UsageError(f"there is no tool {tool}", "--from", f"use {' or '.join(TOOLS)}")
    table = key_table(tool)
    faults = [
        fault for name, values in documents.items() for fault in refusals(name, values, table)
    ]
    if faults:
        raise RecipeError(
            "\n".join(f"{fault.where}: {fault.what}" for fault in faults), details=tuple(faults)
        )
    sources = _sources(documents, tool, table)
    merged, conflicts = _merged(sources)
    missing = _add_missing_data(merged)
    recipe = _recipe(merged, name)
    return Migration(table.title, recipe, tuple(sources), tuple(conflicts), missing)


def _values(file: Path) -> dict[str, object]:
    try:
        value = strict_yaml.read(file).value
    except strict_yaml.YamlError as error:
        raise RecipeError(str(error), str(file)) from error
    except IsADirectoryError as error:
        raise UsageError("is a folder, not a file", str(file)) from error
    except FileNotFoundError as error:
        raise UsageError("there is no such file", str(file)) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", str(file)) from error
    if not isinstance(value, dict) or not value:
        raise RecipeError("has no `key: value` lines", str(file))
    return {
        key: _WORDS.get(word.lower(), word) if isinstance(word, str) else word
        for key, word in value.items()
    }


def _tool_of(documents: Mapping[str, Mapping[str, object]]) -> str:
    """Return the tool whose typical keys the files have.

    Raises:
        UsageError: They have none, or those of both.
    """
    keys = {key for values in documents.values() for key in values}
    likely = [tool for tool in TOOLS if keys & set(key_table(tool).marks)]
    if len(likely) != 1:
        raise UsageError(
            "the keys do not tell which tool the files are of",
            ", ".join(documents),
            f"add --from {' or --from '.join(TOOLS)}",
        )
    return likely[0]


def _sources(
    documents: Mapping[str, Mapping[str, object]], tool: str, table: KeyTable
) -> list[SourceFile]:
    """Return the translated files in the order of their stages."""
    sources: list[SourceFile] = []
    for name, values in documents.items():
        module = llamafactory if tool == "llamafactory" else axolotl
        stage = module.stage_of(values)
        twin = next((source for source in sources if source.stage == stage), None)
        if twin is not None:
            raise UsageError(
                f"{twin.name} and {name} both configure {stage.title}",
                hint="give one file per stage",
            )
        sources.append(translated(name, stage, values, table))
    for source in sources:
        if tool == "llamafactory":
            llamafactory.complete(source, sources)
        else:
            axolotl.complete(source, table)
    return sorted(sources, key=lambda source: ALL_STAGES.index(source.stage))


def _merged(sources: Sequence[SourceFile]) -> tuple[dict[str, Setting], list[str]]:
    """Return recipe key -> setting, and a sentence per conflict.

    What a file says wins over a default of the tool, and an earlier stage over a later one.

    Raises:
        UsageError: The files name different bases.
    """
    merged: dict[str, Setting] = {}
    conflicts = [sentence for source in sources for sentence in source.conflicts]
    folders = {source.values.get("output_dir") for source in sources} - {None}
    for source in sources:
        for target, setting in source.settings.items():
            earlier = merged.get(target)
            if target == "model.name_or_path" and setting.value in folders:
                source.remark(setting.key, "the result of another file: the run's own")
            elif earlier is None or (earlier.is_default and not setting.is_default):
                merged[target] = setting
            elif earlier.value != setting.value and not setting.is_default:
                if target == "model.name_or_path":
                    raise UsageError(
                        f"the files name different bases: {earlier.value} ({earlier.place}) and "
                        f"{setting.value} ({setting.place})",
                        hint="a run has one base for all stages",
                    )
                conflicts.append(
                    f"{target}: {earlier.value} ({earlier.place}) and {setting.value} "
                    f"({setting.place}); {earlier.value} is used"
                )
    if "lora" in merged:
        for target in [target for target in merged if target.startswith("lora.")]:
            conflicts.append(
                f"lora: all weights ({merged['lora'].place}) and adapters "
                f"({merged[target].place}); all weights are trained"
            )
            del merged[target]
    return merged, list(dict.fromkeys(conflicts))


def _add_missing_data(merged: dict[str, Setting]) -> tuple[str, ...]:
    """Give data to the kinds that no file names; return those that get the embedded world's rows.

    Prompts are those of the demonstrations, as far as a data set can serve as both.
    """
    named = {target.split(".")[1] for target in merged if target.startswith("data.")}
    if "prompts" not in named and "demonstrations" in named:
        _copy_prompts(merged)
        named.add("prompts")
    return tuple(kind for kind in DATA_KINDS if kind not in named)


def _copy_prompts(merged: dict[str, Setting]) -> None:
    prefix = "data.demonstrations."
    for target in [target for target in merged if target.startswith(prefix)]:
        setting = merged[target]
        value = setting.value
        if isinstance(value, list):
            value = [_without_answers(one) for one in value]
        elif target == f"{prefix}columns":
            value = _without_answers({"columns": value})["columns"]
        merged[target.replace("demonstrations", "prompts")] = type(setting)(
            value, setting.file, setting.key, is_default=True
        )


def _without_answers(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a source of demonstrations as one of prompts, without the columns of answers."""
    columns = section.get("columns", {})
    others = {ours: column for ours, column in columns.items() if ours not in _ANSWERS}
    return {**section, "columns": others}


_ANSWERS = ("output", "completion")


def _recipe(merged: Mapping[str, Setting], name: str) -> Recipe:
    """Return the recipe of settings by dotted key.

    Raises:
        RecipeError: Values are invalid; names the file and key of each.
    """
    values: dict[str, Any] = {"name": name}
    for target, setting in merged.items():
        *sections, key = target.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = setting.value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        details = []
        for path, sentence in sentences(error):
            dotted = ".".join(path)
            origin = merged.get(dotted)
            place = f"{origin.place} ({dotted})" if origin else dotted
            details.append(ErrorDetail(sentence, place))
        lines = [f"{detail.where}: {detail.what}" for detail in details]
        raise RecipeError("\n".join(lines), details=tuple(details)) from error
