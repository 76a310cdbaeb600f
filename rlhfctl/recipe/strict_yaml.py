"""Strict YAML: 1e-5 is a number, `no` is text, and duplicate keys are an error.

PyYAML follows YAML 1.1, which reads ``1e-5`` as text, ``no`` as false, ``010`` as eight and
``12:30:45`` as 45045, silently keeps the last of two equal keys, and lets a few aliases expand to
billions of values. The loader here follows the core schema of YAML 1.2.2 (section 10.3.2), but
leaves a number with a leading zero as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 1 << 20
MAX_ALIASES = 100
MAX_DEPTH = 32
MAX_VALUES = 20_000

KeyPath = tuple[str, ...]

_PREFIX = "tag:yaml.org,2002:"
_WHOLE = r"(?:0|[1-9][0-9]*)"
_FINITE = rf"[-+]?(?:{_WHOLE}?\.[0-9]+|{_WHOLE}\.?)(?:[eE][-+]?[0-9]+)?"
_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", rf"[-+]?{_WHOLE}", "-+0123456789"),
    (
        "float",
        rf"{_FINITE}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class YamlError(Exception):
    """Errors in a YAML text, as (line, message) pairs; lines count from 1."""

    def __init__(self, *errors: tuple[int, str]) -> None:
        super().__init__("; ".join(f"line {line}: {text}" for line, text in errors))
        self.errors = errors


@dataclass(frozen=True)
class Document:
    """Plain values of a YAML text, with the line of each mapping key.

    Attributes:
        value: dicts, lists, str, int, float, bool and None.
        lines: Key path -> line of the key, from 1.
    """

    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Composes nodes under the 1.2 rules; refuses tags, deep nesting and too many aliases."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    _aliases = 0
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise YamlError((line, f"more than {MAX_ALIASES} aliases"))
        elif event.tag is not None:
            raise YamlError((line, f"tags such as {event.tag} are not allowed"))
        if self._depth >= MAX_DEPTH:
            raise YamlError((line, f"nested more than {MAX_DEPTH} levels deep"))
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read back as another value."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _name, _pattern, _first in _SCALARS:
    _compiled = re.compile(rf"^(?:{_pattern})$")
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _name, _compiled, list(_first))
_Loader.add_implicit_resolver(_PREFIX + "null", re.compile(r"^$"), [""])


@dataclass
class _Reader:
    """Converts composed nodes to plain values; collects lines and duplicate keys."""

    lines: dict[KeyPath, int] = field(default_factory=dict)
    errors: list[tuple[int, str]] = field(default_factory=list)
    values: int = 0

    def read(self, node: yaml.Node, path: KeyPath, above: tuple[int, ...] = ()) -> Any:
        line = node.start_mark.line + 1
        self.values += 1
        if self.values > MAX_VALUES:
            raise YamlError((line, f"aliases expand to more than {MAX_VALUES} values"))
        if id(node) in above:
            raise YamlError((line, "an alias is inside the value it repeats"))
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.read(item, (*path, str(position)), above)
                for position, item in enumerate(node.value)
            ]
        return _scalar(node)

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, above: tuple[int, ...]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError((line, "a key must be plain text"))
            key = key_node.value
            if key in result:
                dotted = ".".join((*path, key))
                self.errors.append((line, f"{dotted}: given twice, first on line {first[key]}"))
                continue
            first[key] = self.lines[(*path, key)] = line
            result[key] = self.read(value_node, (*path, key), above)
        return result


def _scalar(node: yaml.Node) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    text: str = node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        # No recipe needs more digits, and int() raises ValueError for thousands of them.
        return int(text) if len(text) <= 100 else text
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def parse(text: str) -> Document:
    """Read one YAML document.

    Raises:
        YamlError: The text is not YAML, or uses what a recipe must not: tags, duplicate keys,
            too many aliases, several documents.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError((line, f"character U+{_code(error):04X} is not allowed")) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError((mark.line + 1 if mark else 1, " ".join(_causes(error)))) from error
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        return Document(None)
    reader = _Reader()
    value = reader.read(node, ())
    if reader.errors:
        raise YamlError(*reader.errors)
    return Document(value, reader.lines)


def _code(error: yaml.reader.ReaderError) -> int:
    character = error.character
    return ord(character) if isinstance(character, str) else int(character)


def _causes(error: yaml.MarkedYAMLError) -> Iterator[str]:
    if error.context:
        yield f"{error.context}:"
    yield error.problem or "not YAML"


def read(path: Path) -> Document:
    """Read a YAML file of at most 1 MiB.

    Raises:
        YamlError: As `parse`; also when the file is too large or not UTF-8.
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise YamlError((1, "larger than 1 MiB, the limit of a recipe"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlError((line, f"not UTF-8 text (byte 0x{raw[error.start]:02x})")) from error
    return parse(text)


def dump(value: Any) -> str:
    """Return plain values as YAML that `parse` reads back unchanged, in the same key order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
