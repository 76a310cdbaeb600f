"""Strict JSON form of the results: dataclass to JSON object and back.

A field is written under its own name, None is left out, and an `Estimate` is written flat. A number
that is not finite is written as null by the manifest, so null is read as NaN. Metadata of a field
changes that:

- `key`: Name in JSON, where it cannot be a Python name.
- `bounds`: Names of an estimate's interval; `NAME_low` and `NAME_high` by default.
- `values`: Values of a dictionary that may be any JSON and are not checked.
- `null`: None is written as null, and null is read as None.
- `inline`: The fields of a nested dataclass, or the entries of a dictionary, are written beside
  the other fields.
"""

from __future__ import annotations

import dataclasses
import math
import types
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.results.estimate import Estimate

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
_HINT = "Re-run the stage that wrote it, or read it with the version that wrote it."


def to_json(result: Any) -> dict[str, Any]:
    """Return a result dataclass as a JSON object."""
    json: dict[str, Any] = {}
    for field in dataclasses.fields(result):
        value, key = getattr(result, field.name), _key(field)
        if value is None:
            json |= {key: None} if field.metadata.get("null") else {}
        elif isinstance(value, Estimate):
            ends = zip((key, *_bounds(field)), dataclasses.astuple(value), strict=True)
            json |= {name: number for name, number in ends if number is not None}
        elif field.metadata.get("inline"):
            json |= _encode(value)
        else:
            json[key] = _encode(value)
    return json


def from_json(kind: type[T], json: Any, source: str) -> T:
    """Read a result dataclass.

    Args:
        kind: Dataclass to build.
        json: Parsed JSON.
        source: File that it comes from, for the error message.

    Raises:
        CheckpointError: A field is unknown, missing or of the wrong type; names it.
    """
    return _object(kind, json, source, "")  # type: ignore[no-any-return]


def read_result(kind: type[T], path: Path) -> T:
    """Read a result dataclass from a JSON file.

    Raises:
        CheckpointError: The file is missing or no JSON, or a field is unknown, missing or of the
            wrong type; names file and field.
    """
    try:
        json = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the file cannot be read ({error})", str(path), _HINT) from error
    return from_json(kind, json, str(path))


@cache
def field_types(kind: type) -> dict[str, Any]:
    """Return the resolved type of each field of a result dataclass."""
    return get_type_hints(kind)


def without_none(kind: Any) -> Any:
    """Return X of `X | None`; other types are returned unchanged."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    (inner,) = (item for item in get_args(kind) if item is not type(None))
    return inner


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))


def _keys(kind: Any) -> set[str]:
    """Return the names in JSON that the fields of a dataclass may have."""
    return {name for field in dataclasses.fields(kind) for name in (_key(field), *_bounds(field))}


def _bounds(field: dataclasses.Field[Any]) -> tuple[str, str]:
    low, high = field.metadata.get("bounds", (f"{_key(field)}_low", f"{_key(field)}_high"))
    return low, high


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, dict):
        return {name: _encode(item) for name, item in value.items()}
    return [_encode(item) for item in value] if isinstance(value, list | tuple) else value


def _object(kind: Any, json: Any, source: str, path: str) -> Any:
    if not isinstance(json, dict):
        raise _error(source, path, f"expected an object, not {json!r:.60}")
    values, remaining = _fields(kind, dict(json), source, path)
    if remaining:
        raise _error(source, _join(path, min(remaining)), "unknown field")
    version = values.get("version")
    if version is not None and version != kind.version:
        raise _error(source, "version", f"expected {kind.version}, not {version}")
    return kind(**values)


def _fields(
    kind: Any, remaining: dict[str, Any], source: str, path: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of a dataclass's fields, and the entries that belong to none of them."""
    hints, values = field_types(kind), {}
    # A dictionary that is inline takes what no other field has taken.
    for field in sorted(dataclasses.fields(kind), key=lambda item: "inline" in item.metadata):
        key, hint = _key(field), hints[field.name]
        inner = without_none(hint)
        if field.metadata.get("inline") and get_origin(inner) is dict:
            values[field.name] = _decode(inner, remaining, source, path)
            remaining = {}
        elif field.metadata.get("inline"):
            if inner is hint or remaining.keys() & _keys(inner):
                part, remaining = _fields(inner, remaining, source, path)
                values[field.name] = inner(**part)
        elif key not in remaining:
            if field.default is field.default_factory is dataclasses.MISSING:
                raise _error(source, _join(path, key), "missing field")
        elif inner is Estimate:
            names = [name for name in (key, *_bounds(field)) if name in remaining]
            if len(names) == 2:
                raise _error(source, _join(path, names[1]), "interval with one bound only")
            numbers = [
                _decode(float, remaining.pop(name), source, _join(path, name)) for name in names
            ]
            values[field.name] = Estimate(*numbers)
        elif field.metadata.get("values") and isinstance(remaining[key], dict):
            values[field.name] = remaining.pop(key)
        else:
            kind = hint if field.metadata.get("null") else inner
            values[field.name] = _decode(kind, remaining.pop(key), source, _join(path, key))
    return values, remaining


def _decode(kind: Any, json: Any, source: str, path: str) -> Any:
    inner = without_none(kind)
    if json is None and inner is not kind:
        return None
    if dataclasses.is_dataclass(inner):
        return _object(inner, json, source, path)
    origin = get_origin(inner)
    if origin is dict and isinstance(json, dict):
        item_kind = get_args(inner)[1]
        return {
            name: _decode(item_kind, item, source, _join(path, name)) for name, item in json.items()
        }
    if origin is list and isinstance(json, list):
        (item_kind,) = get_args(inner)
        return [
            _decode(item_kind, item, source, f"{path}[{index}]") for index, item in enumerate(json)
        ]
    # A whole number stays an int, so that it is written again as it was.
    if inner is float and (json is None or type(json) in (int, float)):
        return math.nan if json is None else json
    if json in get_args(inner) if origin is Literal else type(json) is inner:
        return json
    expected = getattr(inner, "__name__", inner) if origin is None else inner
    raise _error(source, path, f"expected {expected}, not {json!r:.60}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _error(source: str, path: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {problem}" if path else problem, source, _HINT)
