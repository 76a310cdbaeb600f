"""Translation of one file's keys by its tool's table."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from rlhfctl.errors import ErrorDetail
from rlhfctl.migration.conversions import CONVERSIONS, Context, NotCarriedError, OffError
from rlhfctl.migration.outcomes import SourceFile
from rlhfctl.migration.tables import BY_TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rlhfctl.migration.tables import KeyTable
    from rlhfctl.stage_table import Stage

_OFF = "off, as in rlhfctl"


def refusals(name: str, values: Mapping[str, object], table: KeyTable) -> Iterator[ErrorDetail]:
    """Yield an error per key whose value has no counterpart at all."""
    for key, reasons in table.refused.items():
        value = values.get(key)
        if is_off(value):
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        reason = reasons.get(text)
        if text not in reasons and "*" in reasons:
            reason = f"{text} {reasons['*']}" if isinstance(value, str) else reasons["*"]
        if reason is not None:
            yield ErrorDetail(reason, f"{name}: {key}")


def translated(
    name: str, stage: Stage, values: Mapping[str, object], table: KeyTable
) -> SourceFile:
    """Return a file with what became of each key, apart from the values that its tool reads.

    Args:
        name: The file as named by the user.
        stage: The stage that it configures.
        values: Its keys.
        table: The tool's table.
    """
    source = SourceFile(name, stage, values)
    context = Context(stage, values, table.default_values(stage.name))
    for key, value in values.items():
        if value is None or value == "":
            source.record(key, "empty")
        elif values.get(table.replaced.get(key, "")):
            source.record(key, "left_out", reason=f"{table.replaced[key]} replaces it")
        elif key in table.mapped:
            _map(source, key, value, table, context)
        elif key in table.left_out:
            source.record(key, "left_out", reason=table.left_out[key])
        elif key in table.unsupported:
            record_unsupported(source, key, value, table.unsupported[key], table.off)
        elif key in table.refused:
            source.record(key, "left_out", reason=_OFF)
        else:
            source.record(key, "unknown", reason=_suggestion(key, table.keys))
    for key, value in context.defaults.items():
        if values.get(key) is None and not values.get(table.replaced.get(key, key)):
            _map_default(source, key, value, table, context)
    return source


def record_unsupported(
    source: SourceFile, key: str, value: object, reason: str, off: Mapping[str, list[object]]
) -> None:
    """Record a key that has no counterpart, or the fact that its value turns it off."""
    if is_off(value) or value in off.get(key.rpartition(".")[2], []):
        source.record(key, "left_out", reason=_OFF, value=value)
    else:
        source.record(key, "unsupported", reason=reason, value=value)


def is_off(value: object) -> bool:
    """Return whether a value turns a key off: false, null, 0, or empty."""
    return value in (None, False, 0, "", "none", "false") or value in ([], {})


def _map(source: SourceFile, key: str, value: object, table: KeyTable, context: Context) -> None:
    rule = table.mapped[key]
    targets = rule.targets_in(source.stage)
    if rule.convert == BY_TOOL and targets:
        source.record(key, "mapped", targets=targets, reason=rule.remark)
        return
    if not targets:
        source.record(key, "left_out", reason=rule.reason)
        return
    try:
        converted = CONVERSIONS[rule.convert](value, context) if rule.convert else value
    except OffError as off:
        source.record(key, "left_out", reason=_OFF if str(off) == "off" else str(off))
    except NotCarriedError as fault:
        source.record(key, "unsupported", reason=str(fault))
    else:
        for target in targets:
            source.set(target, converted, key)
        source.record(key, "mapped", targets=targets, reason=rule.remark)


def _map_default(
    source: SourceFile, key: str, value: object, table: KeyTable, context: Context
) -> None:
    """Set what a default of the tool means, apart from recipe keys that the file sets."""
    rule = table.mapped.get(key)
    if rule is None:
        reason = table.unsupported[key]
        source.record(key, "default", reason=reason, value=value)
        return
    targets = rule.targets_in(source.stage)
    targets = tuple(target for target in targets if target and target not in source.settings)
    if not targets:
        return
    if rule.convert != BY_TOOL:
        try:
            converted = CONVERSIONS[rule.convert](value, context) if rule.convert else value
        except OffError:
            return
        except NotCarriedError as fault:
            source.record(key, "default", reason=str(fault), value=value)
            return
        for target in targets:
            source.set(target, converted, key, is_default=True)
    source.record(key, "default", targets=targets, value=value)


def _suggestion(key: str, keys: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(keys), n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else ""
