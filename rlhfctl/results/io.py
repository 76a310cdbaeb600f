"""Strict JSON form of the results: dataclass to JSON object and back."""

from __future__ import annotations

import dataclasses
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlhfctl.errors import CheckpointError

T = TypeVar("T")
_HINT = "Re-run the stage that wrote it, or read it with the version that wrote it."


def to_json(result: Any) -> dict[str, Any]:
    """Return a result dataclass as a JSON object; fields at their default are left out.

    A field with metadata `inline` contributes its own fields instead of a nested object.
    `version` is always written.
    """
    json: dict[str, Any] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.metadata.get("inline"):
            json |= {} if value is None else to_json(value)
        elif field.name == "version" or value != _default(field):
            json[field.name] = _encode(value)
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


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, dict):
        return {name: _encode(item) for name, item in value.items()}
    return [_encode(item) for item in value] if isinstance(value, list | tuple) else value


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


def _object(kind: Any, json: Any, source: str, path: str) -> Any:
    if not isinstance(json, dict):
        raise _error(source, path, f"expected an object, not {json!r:.60}")
    hints, values, remaining = field_types(kind), {}, dict(json)
    prefix = f"{path}." if path else ""
    for field in dataclasses.fields(kind):
        if field.metadata.get("inline"):
            inner = without_none(hints[field.name])
            names = field_types(inner)
            part = {name: remaining.pop(name) for name in list(remaining) if name in names}
            if part:
                values[field.name] = _object(inner, part, source, path)
        elif field.name in remaining:
            item = remaining.pop(field.name)
            values[field.name] = _decode(hints[field.name], item, source, prefix + field.name)
        elif _default(field) is dataclasses.MISSING:
            raise _error(source, prefix + field.name, "missing field")
    if remaining:
        raise _error(source, prefix + min(remaining), "unknown field")
    if "version" in values and values["version"] != kind.version:
        raise _error(source, "version", f"expected {kind.version}, not {values['version']}")
    return kind(**values)


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
            name: _decode(item_kind, item, source, f"{path}.{name}") for name, item in json.items()
        }
    if origin is list and isinstance(json, list):
        (item_kind,) = get_args(inner)
        return [
            _decode(item_kind, item, source, f"{path}[{index}]") for index, item in enumerate(json)
        ]
    if inner is float and type(json) in (int, float):
        return float(json)
    if json in get_args(inner) if origin is Literal else type(json) is inner:
        return json
    expected = getattr(inner, "__name__", inner) if origin is None else inner
    raise _error(source, path, f"expected {expected}, not {json!r:.60}")


def _error(source: str, path: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{path}: {problem}" if path else problem, source, _HINT)
