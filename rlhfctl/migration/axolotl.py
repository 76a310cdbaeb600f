"""axolotl's keys that are read with others: stage, adapter, data, special tokens and trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DataError
from rlhfctl.migration.tables import by_key
from rlhfctl.migration.translate import is_off, record_unsupported
from rlhfctl.stage_table import REWARD_MODEL, SFT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.migration.outcomes import Kind, SourceFile
    from rlhfctl.migration.tables import KeyTable
    from rlhfctl.stage_table import Stage

_TRACKERS = {
    "use_wandb": "wandb",
    "wandb_project": "wandb",
    "use_mlflow": "mlflow",
    "use_tensorboard": "tensorboard",
    "use_trackio": "trackio",
}
_PROJECTS = ("wandb_project", "mlflow_experiment_name")
_FIELDS = {
    "field_instruction": "instruction",
    "field_input": "input",
    "field_output": "output",
    "field_system": "system",
    "field_prompt": "prompt",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
}
_FILE_TYPES = {"json", "csv", "parquet", "text", "arrow"}


def stage_of(values: Mapping[str, object]) -> Stage:
    """Return the stage that a file configures."""
    return REWARD_MODEL if values.get("reward_model") else SFT


def complete(source: SourceFile, table: KeyTable) -> None:
    """Set what the keys that are read with others say.

    Raises:
        DataError: An entry of `datasets` names no data.
    """
    if is_off(source.values.get("adapter")):
        _train_all_weights(source)
    _batch(source)
    _trackers(source)
    _special_tokens(source)
    _data(source, table)


def _train_all_weights(source: SourceFile) -> None:
    for target in [target for target in source.settings if target.startswith("lora.")]:
        key = source.settings.pop(target).key
        source.outcomes = [one for one in source.outcomes if one.key != key]
        if key in source.values:
            source.record(key, "left_out", reason="without adapter, all weights are trained")
    source.set("lora", None, "adapter", is_default="adapter" not in source.values)
    source.outcomes = [one for one in source.outcomes if one.key != "adapter"]
    kind: Kind = "mapped" if "adapter" in source.values else "default"
    source.record("adapter", kind, targets=("lora",), reason="all weights are trained")


def _batch(source: SourceFile) -> None:
    total = source.values.get("batch_size")
    target = f"{source.stage.module}.gradient_accumulation_steps"
    rows = source.settings[f"{source.stage.module}.per_device_train_batch_size"].value
    if isinstance(total, int) and isinstance(rows, int) and total >= rows > 0:
        source.set(target, total // rows, "batch_size")
        source.remark("batch_size", f"{total // rows} passes of {rows} rows in one process")


def _trackers(source: SourceFile) -> None:
    names = [name for key, name in _TRACKERS.items() if not is_off(source.values.get(key))]
    if names:
        source.set("tracking.report_to", list(dict.fromkeys(names)), "use_wandb")
    for key in _PROJECTS:
        if source.values.get(key):
            source.set("tracking.project", source.values[key], key)


def _special_tokens(source: SourceFile) -> None:
    tokens = source.values.get("special_tokens")
    if not isinstance(tokens, dict):
        return
    source.outcomes = [one for one in source.outcomes if one.key != "special_tokens"]
    for name, token in tokens.items():
        key = f"special_tokens.{name}"
        if token is None:
            source.record(key, "empty")
        elif name == "pad_token":
            source.set("model.pad_token", token, key)
            source.record(key, "mapped", targets=("model.pad_token",), value=token)
        else:
            reason = "the tokenizer's own special tokens are used; see generation.stop_tokens"
            source.record(key, "unsupported", reason=reason, value=token)


def _data(source: SourceFile, table: KeyTable) -> None:
    entries = source.values.get("datasets")
    kind = source.stage.data[0]
    if not isinstance(entries, list) or not entries:
        raise DataError("datasets is missing", source.name, "name the data of the stage")
    sections: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        place = f"datasets.{number}" if len(entries) > 1 else "datasets"
        if not isinstance(entry, dict):
            raise DataError("is no entry with path and type", f"{source.name}: {place}")
        sections.extend(_sections(source, place, entry, table))
    if len(sections) == 1:
        for key, value in sections[0].items():
            source.set(f"data.{kind}.{key}", value, "datasets")
    else:
        source.set(f"data.{kind}.sources", sections, "datasets")
    _hold_out(source, kind)


def _sections(
    source: SourceFile, place: str, entry: Mapping[str, Any], table: KeyTable
) -> list[dict[str, Any]]:
    """Return the sources of one entry of `datasets`: one, or one per data file."""
    keys = table.extra["datasets"]
    left_out, unsupported = by_key(keys["left_out"]), by_key(keys["unsupported"])
    for key, value in entry.items():
        dotted = f"{place}.{key}"
        if value is None or value == "":
            source.record(dotted, "empty", value=value)
        elif key in left_out:
            source.record(dotted, "left_out", reason=left_out[key], value=value)
        elif key in unsupported:
            if key == "roles" and _usual_roles(value):
                source.record(dotted, "left_out", reason="the usual names", value=value)
                continue
            if key == "message_property_mappings" and _usual_properties(value):
                source.record(dotted, "left_out", reason="the usual names", value=value)
                continue
            record_unsupported(source, dotted, value, unsupported[key], keys["off"])
        elif key not in keys["mapped"]:
            source.record(dotted, "unknown", value=value)
    section: dict[str, Any] = {}
    for key, ours in (("name", "config"), ("revision", "revision")):
        if entry.get(key):
            section[ours] = str(entry[key])
    split = str(entry.get("split") or "train")
    if "[" in split:
        reason = "a part of a split; max_rows draws a number of rows"
        source.record(f"{place}.split", "unsupported", reason=reason, value=split)
    section["split"] = split.partition("[")[0]
    section |= _form(source, place, entry, table)
    return [{"source": path, **section} for path in _paths(source, place, entry)]


def _paths(source: SourceFile, place: str, entry: Mapping[str, Any]) -> list[str]:
    files = entry.get("data_files")
    path = entry.get("path")
    if files and (path in _FILE_TYPES or not path):
        return [str(file) for file in (files if isinstance(files, list) else [files])]
    if files:
        reason = "files of a repository; data sets are read by split"
        source.record(f"{place}.data_files", "unsupported", reason=reason, value=files)
    if not path:
        raise DataError("has no path", f"{source.name}: {place}")
    return [str(path)]


def _form(
    source: SourceFile, place: str, entry: Mapping[str, Any], table: KeyTable
) -> dict[str, Any]:
    """Return `preset`, `columns` and `as_chat` of an entry, by its type."""
    name = entry.get("type")
    types = table.extra["types"]
    if isinstance(name, dict):
        return {"preset": "alpaca"} | _columns(_named_columns(source, place, name, table))
    form = types.get(name)
    if form is None:
        reason = f"the form is found by the columns, not by the type {name}; rlhfctl data show"
        source.record(f"{place}.type", "unsupported", reason=reason, value=name)
        return _columns(_named_columns(source, place, entry, table, record=False))
    columns = dict(form.get("columns", {}))
    if entry.get("field_messages") and "field_messages" in form:
        columns = dict.fromkeys(columns, str(entry["field_messages"]))
    columns |= _named_columns(source, place, entry, table, record=False)
    if form.get("turns") and source.stage == SFT:
        source.set("sft.assistant_turns", form["turns"], f"{place}.type", is_default=True)
    chosen = {key: form[key] for key in ("preset", "as_chat") if key in form}
    return chosen | _columns(columns)


def _columns(columns: Mapping[str, str]) -> dict[str, Any]:
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    return {"columns": renamed} if renamed else {}


def _named_columns(
    source: SourceFile,
    place: str,
    fields: Mapping[str, Any],
    table: KeyTable,
    *,
    record: bool = True,
) -> dict[str, str]:
    unsupported = by_key(table.extra["datasets"]["unsupported"])
    for key, value in fields.items() if record else ():
        if key not in _FIELDS and not is_off(value):
            reason = unsupported.get(key, "")
            kind: Kind = "unsupported" if reason else "unknown"
            source.record(f"{place}.type.{key}", kind, reason=reason, value=value)
    return {ours: str(fields[key]) for key, ours in _FIELDS.items() if fields.get(key)}


_USUAL_ROLES = {
    "user": {"human", "user", "prompter"},
    "assistant": {"gpt", "assistant", "model", "chatgpt", "bing", "bard"},
    "system": {"system", "developer"},
    "tool": {"tool", "observation", "function_response"},
}


def _usual_roles(roles: Any) -> bool:
    return isinstance(roles, dict) and all(
        isinstance(names, list) and set(names) <= _USUAL_ROLES.get(role, set())
        for role, names in roles.items()
    )


def _usual_properties(properties: Any) -> bool:
    return properties in (
        {"role": "role", "content": "content"},
        {"role": "from", "content": "value"},
    )


def _hold_out(source: SourceFile, kind: str) -> None:
    share = source.values.get("val_set_size")
    if share is None:
        return
    if isinstance(share, float) and 0.0 < share < 1.0:
        source.set(f"data.{kind}.held_out", share, "val_set_size")
        return
    source.outcomes = [one for one in source.outcomes if one.key != "val_set_size"]
    reason = (
        "rlhfctl always holds out prompts, a share of 0.1 by default"
        if share == 0
        else f"a number of rows; rlhfctl takes a share: set data.{kind}.held_out"
    )
    source.record("val_set_size", "left_out" if share == 0 else "unsupported", reason=reason)
