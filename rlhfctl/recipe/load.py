"""Loading of recipes: YAML files and overrides to a checked recipe, or all errors with lines."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

import rlhfctl
from rlhfctl.errors import ErrorDetail, RecipeError, UnsafeError, UsageError
from rlhfctl.recipe import strict_yaml
from rlhfctl.recipe.error_messages import HINTS, sentences
from rlhfctl.recipe.keys import annotation_at, split_key, takes_list, takes_null, takes_text
from rlhfctl.recipe.mixture_lists import DATA_KINDS, replaced_keys, with_sections
from rlhfctl.recipe.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rlhfctl.recipe.strict_yaml import KeyPath

EXTENDS = "extends"
EMBEDDED = "embedded"
DEFAULT = "default"


@dataclass(frozen=True)
class Override:
    """One key set outside the recipe file.

    Attributes:
        key: Dotted, such as ``ppo.beta``.
        value: Text from the command line; parsed as YAML, typed by the schema.
        label: Origin as shown to the user, such as ``--beta``.
    """

    key: str
    value: str
    label: str = "--set"


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe and the origin of its values.

    Attributes:
        recipe: The recipe with all defaults.
        origins: Dotted key of each value -> ``default``, ``file:line`` or an override's label.
    """

    recipe: Recipe
    origins: dict[str, str]


@dataclass
class _Layers:
    """Merged values of files and overrides, later ones on top, with the origin of each key."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    levels: dict[KeyPath, int] = field(default_factory=dict)

    def lay(self, values: dict[str, Any], origins: dict[KeyPath, str], level: int) -> None:
        """Merge values on top: sections key by key, all other values as a whole.

        Args:
            values: The values of a file or an override.
            origins: Origin of each key.
            level: Number of the file, deepest first; overrides share the highest.
        """
        values, origins = with_sections(values, origins)
        for path in replaced_keys(values):
            self._remove(path)
        self._merge(self.values, values, ())
        self.origins.update(origins)
        self.levels.update(dict.fromkeys(origins, level))

    def level(self, path: KeyPath) -> int:
        """Return the level that a key was last set on; -1 for a default."""
        return self.levels.get(path, -1)

    def _merge(self, below: dict[str, Any], above: dict[str, Any], path: KeyPath) -> None:
        for key, value in above.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(below.get(key), dict):
                self._merge(below[key], value, here)
                continue
            for old in [old for old in self.origins if old[: len(here)] == here]:
                del self.origins[old]
            below[key] = value

    def _remove(self, path: KeyPath) -> None:
        section = self.values
        for key in path[:-1]:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section.pop(path[-1], None)
        for old in [old for old in self.origins if old[: len(path)] == path]:
            del self.origins[old]

    def origin(self, path: KeyPath) -> str | None:
        """Return the origin of a key, or of its section if the key itself was not set."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return None

    def culprit(self, section: KeyPath, sentence: str) -> str | None:
        """Return the origin of the last-set key that an error message about a section names."""
        names = set(re.findall(r"\w+(?:\.\w+)*", sentence))
        for path, origin in reversed(self.origins.items()):
            if path[: len(section)] == section and ".".join(path[len(section) :]) in names:
                return origin
        return None


def load_recipe(path: Path, overrides: Sequence[str | Override] = ()) -> LoadedRecipe:
    """Read a recipe, the recipes it extends, and overrides, and check the result.

    Args:
        path: YAML file. Its key `extends` names another recipe, relative to it, to start from.
        overrides: Applied in order on top; text such as ``ppo.beta=0.1`` is labelled ``--set``.

    Raises:
        UsageError: There is no such file, or an override is not ``key=value``.
        RecipeError: The recipe has errors; lists all, one ``file:line: key: what`` per line.
    """
    if not _exists(path):
        shipped = ", ".join(sorted(recipe.name for recipe in shipped_recipes()))
        raise UsageError("there is no such recipe", str(path), f"shipped recipes: {shipped}")
    layers = _Layers()
    family = list(reversed(list(_family(path))))
    for level, (name, document) in enumerate(family):
        origins = {key: f"{name}:{line}" for key, line in document.lines.items()}
        values = {key: value for key, value in document.value.items() if key != EXTENDS}
        origins.pop((EXTENDS,), None)
        layers.lay(values, origins, level)
    for override in overrides:
        parsed = override if isinstance(override, Override) else _parse_override(override)
        _apply(layers, parsed, len(family))
    return _check(layers, str(path))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):  # not a valid file name, or a loop of links
        return path.absolute()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # not a valid file name
        return False


def _check(layers: _Layers, name: str) -> LoadedRecipe:
    broken = [
        _detail(
            f"{layers.origin(path) or name}: {'.'.join(filter(_is_unicode, path))}",
            "not valid Unicode",
        )
        for path in _broken_texts(layers.values, ())
    ]
    if broken:
        raise _recipe_error(broken)
    try:
        recipe = Recipe.model_validate(layers.values)
    except ValidationError as error:
        details = []
        for path, sentence in sentences(error):
            place = layers.culprit(path, sentence) or layers.origin(path) or name
            where = ": ".join(part for part in (place, ".".join(path)) if part)
            details.append(_detail(where, sentence))
        raise _recipe_error(sorted(details, key=lambda detail: _by_place(detail.where))) from error
    _require_data(recipe, layers, name)
    origins = {
        ".".join(path): layers.origins.get(path, DEFAULT)
        for path in _leaves(recipe.model_dump(), ())
    }
    return LoadedRecipe(recipe, origins)


def _require_data(recipe: Recipe, layers: _Layers, name: str) -> None:
    """Refuse the embedded world's rows beside another model, unless the user asked for them.

    A recipe that extends base.yaml inherits its `source: embedded`. So the key counts as given only
    if it stands where the model is named, or on top of that.

    Raises:
        RecipeError: Data sections are omitted; one line per section.
    """
    if recipe.model.name_or_path == EMBEDDED:
        return
    model = layers.level(("model", "name_or_path"))
    omitted = [
        kind
        for kind in DATA_KINDS
        if getattr(recipe.data, kind).is_embedded and layers.level(("data", kind, "source")) < model
    ]
    place = layers.origin(("model", "name_or_path")) or name
    if omitted:
        raise _recipe_error(
            ErrorDetail(
                f"not given for the model {recipe.model.name_or_path}",
                f"{place}: data.{kind}.source",
                "name a file, a folder or a Hub id (the default, embedded, is the built-in model's "
                "own world)",
            )
            for kind in omitted
        )


def _detail(where: str, sentence: str) -> ErrorDetail:
    """Return an error, with the hint that may end its sentence apart."""
    what, separator, hint = sentence.rpartition("; ")
    if separator and hint.startswith(HINTS):
        return ErrorDetail(what, where, hint)
    return ErrorDetail(sentence, where)


def _recipe_error(details: Iterable[ErrorDetail]) -> RecipeError:
    """Return the error that lists several, a line each."""
    listed = tuple(details)
    lines = [
        f"{detail.where}: {'; '.join(filter(None, (detail.what, detail.hint)))}"
        for detail in listed
    ]
    return RecipeError("\n".join(lines), details=listed)


def _by_place(line: str) -> tuple[str, int]:
    name, _, rest = line.partition(":")
    number = rest.partition(":")[0]
    return name, int(number) if number.isdigit() else 0


def _broken_texts(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield where a key or a text has half of a character, which a JSON escape can give."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _broken_texts(str(key), (*path, str(key)))
            yield from _broken_texts(inner, (*path, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from _broken_texts(inner, path)
    elif isinstance(value, str) and not _is_unicode(value):
        yield path


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _leaves(values: dict[str, Any], above: KeyPath) -> Iterator[KeyPath]:
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, dict) and value:
            yield from _leaves(value, path)
        else:
            yield path


def _family(path: Path) -> Iterator[tuple[str, strict_yaml.Document]]:
    """Yield a recipe and the chain of recipes that it extends, nearest first."""
    seen: list[Path] = []
    line = ""
    # A mounted ConfigMap has links to files in a folder beside them: both folders are the recipe's.
    homes = (path.resolve().parent, _resolved(path.parent))
    while True:
        if path.resolve() in seen:
            raise RecipeError(f"{EXTENDS}: {path} extends itself, directly or indirectly", line)
        seen.append(path.resolve())
        document = _document(path)
        yield str(path), document
        parent = document.value.get(EXTENDS)
        if parent is None:
            return
        line = f"{path}:{document.lines[(EXTENDS,)]}"
        if not isinstance(parent, str):
            raise RecipeError(f"{EXTENDS}: must be the name of a single recipe file", line)
        path = _parent(path, parent, line, homes)


def _parent(path: Path, parent: str, line: str, homes: tuple[Path, ...]) -> Path:
    """Return the recipe that another one extends.

    Args:
        path: The recipe.
        parent: Value of its `extends`.
        line: Place of that key, for errors.
        homes: Folders of the first recipe: as named, and of the file that a link leads to.

    Raises:
        RecipeError: There is no such recipe.
        UnsafeError: It is outside of the first recipe's folders and the working folder.
    """
    beside = Path(os.path.normpath(path.parent / parent))
    inside = (*homes, Path.cwd(), shipped_recipes()[0].resolve().parent)
    if not any(_resolved(beside).is_relative_to(folder) for folder in inside):
        raise UnsafeError(
            f"{EXTENDS}: {parent} is outside of the recipe's folder and of the working folder",
            line,
            "Copy that recipe to the folder of this one.",
        )
    if _exists(beside):
        return beside
    shipped = shipped_recipe(parent) if Path(parent).name == parent else None
    if shipped is None:
        raise RecipeError(f"{EXTENDS}: there is no recipe {beside}", line)
    return shipped


def _document(path: Path) -> strict_yaml.Document:
    try:
        document = strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise _recipe_error(
            ErrorDetail(sentence, f"{path}:{line}") for line, sentence in error.errors
        ) from error
    except IsADirectoryError as error:
        raise RecipeError("is a folder, not a recipe", str(path)) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", str(path)) from error
    if document.value is None:
        raise RecipeError("the recipe is empty", str(path))
    if not isinstance(document.value, dict):
        raise RecipeError("a recipe is made of `key: value` lines", f"{path}:1")
    return document


def _parse_override(text: str) -> Override:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"--set {text}: not of the form key=value", hint="for example --set ppo.beta=0.1"
        )
    return Override(key.strip(), value)


def _apply(layers: _Layers, override: Override, level: int) -> None:
    path = split_key(override.key)
    value = _typed(path, override)
    below = _leaves(value, path) if isinstance(value, dict) else ()
    origins = dict.fromkeys((path, *below), override.label)
    for key in reversed(path):
        value = {key: value}
    layers.lay(value, origins, level)


def _typed(path: KeyPath, override: Override) -> Any:
    """Parse an override's value; a key that takes text gets it unparsed."""
    annotation = annotation_at(path)
    text = override.value.strip()
    wants_text = annotation is not None and takes_text(annotation)
    try:
        value = strict_yaml.parse(text).value
    except strict_yaml.YamlError as error:
        if wants_text:
            return text
        raise RecipeError(
            f"{override.key}: {error.errors[0][1]}", override.label, "quote the value for the shell"
        ) from error
    if not wants_text or (isinstance(value, str) and text[:1] in ("'", '"')):
        return value
    if value is None and takes_null(annotation) and text:
        return None
    if isinstance(value, list) and takes_list(annotation):
        return value
    return text


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with all defaults; `load_recipe` reads back an equal one."""
    return strict_yaml.dump(recipe.model_dump(mode="json"))


def shipped_recipes() -> list[Path]:
    """Return the recipes of the installed package, or of the checkout that contains it."""
    package = Path(rlhfctl.__file__).parent
    for folder in (package / "recipes", package.parent / "recipes"):
        recipes = sorted(folder.glob("*.yaml"))
        if recipes:
            return recipes
    return []


def shipped_recipe(name: str) -> Path | None:
    """Return the shipped recipe of this name (``base``, ``base.yaml`` or ``recipes/base.yaml``)."""
    stem = Path(name).name.removesuffix(".yaml")
    return next((path for path in shipped_recipes() if path.stem == stem), None)
