"""LLaMA-Factory's data sets: names in `dataset`, described by `dataset_info.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import DataError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlhfctl.migration.outcomes import SourceFile

_INFO = "dataset_info.json"
_TEXT_TEMPLATES = {"empty", "alpaca"}
"""Templates of plain text: rlhfctl renders instructions without a chat template by Alpaca's."""
_ALPACA = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "history": "history",
    "chosen": "chosen",
    "rejected": "rejected",
}
_SHAREGPT = {
    "messages": "conversations",
    "system": "system",
    "chosen": "chosen",
    "rejected": "rejected",
}
_USUAL_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
_OTHER_HUBS = ("ms_hub_url", "om_hub_url", "script_url")
_TAG_PAIRS = (("from", "value"), ("role", "content"))
_USED = {
    *("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "file_name", "formatting"),
    *("ranking", "subset", "split", "num_samples", "columns", "tags", "revision"),
}


def data_section(source: SourceFile) -> None:
    """Set the data section of a file's stage.

    Raises:
        DataError: A name cannot be resolved, or its rows are of another kind.
    """
    values: Mapping[str, Any] = source.values
    kind = source.stage.data[0]
    names = _names(source)
    descriptions, folder = _descriptions(source, names)
    sections = []
    for name in names:
        description = descriptions.get(name)
        if description is None:
            raise DataError(f"has no data set {name}", str(folder / _INFO), "add it, or rename it")
        sections.append(_section(source, name, description, folder, kind))
    _weigh(source, sections)
    rows = values.get("max_samples")
    for section in sections:
        if isinstance(rows, int):
            section["max_rows"] = min(rows, section.get("max_rows", rows))
    if len(sections) == 1:
        for key, value in sections[0].items():
            source.set(f"data.{kind}.{key}", value, "dataset")
    else:
        source.set(f"data.{kind}.sources", sections, "dataset")
    _hold_out(source, kind, values.get("val_size"))


def _names(source: SourceFile) -> list[str]:
    value = source.values.get("dataset")
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not names:
        raise DataError("dataset is missing", source.name, "name the data set of the stage")
    return [str(name).strip() for name in names]


def _descriptions(source: SourceFile, names: list[str]) -> tuple[dict[str, Any], Path]:
    """Return the descriptions of data sets by name, and their folder.

    The folder is `dataset_dir`, seen from the working folder or from the file's, or the file's own.
    """
    named = str(source.values.get("dataset_dir") or "data")
    if named == "ONLINE":
        return {name: {"hf_hub_url": name} for name in names}, Path()
    beside = Path(source.name).parent
    folders = list(dict.fromkeys((Path(named), beside / named, beside)))
    for folder in folders:
        path = folder / _INFO
        if not path.is_file():
            continue
        try:
            descriptions = parse_json(path.read_bytes())
        except (ValueError, OSError) as error:
            raise DataError(f"cannot be read: {error}", str(path)) from error
        if not isinstance(descriptions, dict):
            raise DataError("is no JSON object of data sets", str(path))
        return descriptions, folder
    places = ", ".join(str(folder / _INFO) for folder in folders)
    raise DataError(
        f"dataset: {', '.join(names)} is described by no {_INFO}; tried {places}",
        source.name,
        "run the command in LLaMA-Factory's folder, or set dataset_dir in the file",
    )


def _section(
    source: SourceFile, name: str, description: Any, folder: Path, kind: str
) -> dict[str, Any]:
    place = str(folder / _INFO)
    if not isinstance(description, dict):
        raise DataError(f"{name} is no description of a data set", place)
    is_ranking = bool(description.get("ranking"))
    if kind != "prompts" and is_ranking != (kind == "comparisons"):
        rows = "comparisons (ranking: true)" if is_ranking else "demonstrations"
        raise DataError(f"{name} has {rows}, and stage {source.stage.name} reads {kind}", place)
    section: dict[str, Any] = {"source": _source(name, description, folder)}
    for key, ours in (("subset", "config"), ("split", "split"), ("revision", "revision")):
        if description.get(key) and "hf_hub_url" in description:
            section[ours] = description[key]
    if isinstance(description.get("num_samples"), int):
        section["max_rows"] = description["num_samples"]
    section |= _form(source, name, description, kind)
    for key in description.keys() - _USED:
        _record(source, f"{name}.{key}", description[key], "rlhfctl has no such key of a data set")
    return section


def _source(name: str, description: Mapping[str, Any], folder: Path) -> str:
    if description.get("hf_hub_url"):
        return str(description["hf_hub_url"])
    for key in _OTHER_HUBS:
        if description.get(key):
            raise DataError(
                f"{name} is at {description[key]} ({key}), which rlhfctl does not read",
                str(folder / _INFO),
                "give hf_hub_url or file_name",
            )
    if not description.get("file_name"):
        raise DataError(f"{name} has neither hf_hub_url nor file_name", str(folder / _INFO))
    return (folder / str(description["file_name"])).as_posix()


def _form(
    source: SourceFile, name: str, description: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """Return `preset`, `columns` and `as_chat` of a data set."""
    is_chat = source.values.get("template") not in _TEXT_TEMPLATES
    columns = description.get("columns") or {}
    if description.get("formatting", "alpaca") in ("sharegpt", "openai"):
        _check_tags(source, name, description.get("tags") or {})
        return _columns(source, name, columns, _SHAREGPT, kind) | {"preset": "sharegpt"}
    usual = _USUAL_COLUMNS if "columns" not in description else {}
    theirs = {**usual, **columns}
    chat = {"as_chat": True} if is_chat else {}
    if is_chat and theirs.get("prompt") and not theirs.keys() & {"query", "system", "history"}:
        # A column `input` beside the instruction would be read with it.
        pairs = {"prompt": "prompt", "response": "completion", "chosen": "chosen"}
        plain = _columns(source, name, theirs, pairs | {"rejected": "rejected"}, kind)
        return plain | {"preset": "trl"} | chat
    return _columns(source, name, theirs, _ALPACA, kind) | {"preset": "alpaca"} | chat


def _columns(
    source: SourceFile,
    name: str,
    theirs: Mapping[str, Any],
    ours: Mapping[str, str],
    kind: str,
) -> dict[str, Any]:
    """Return the `columns` of a section: our names for those that are named differently."""
    answers = {"prompts": set(), "demonstrations": {"response"}}
    answers["comparisons"] = {"chosen", "rejected"}
    columns = {}
    for key, column in theirs.items():
        if column is None or (
            key in ("response", "chosen", "rejected") and key not in answers[kind]
        ):
            continue
        if key not in ours:
            _record(source, f"{name}.columns.{key}", column, "this column is not read")
        elif ours[key] != column:
            columns[ours[key]] = str(column)
    return {"columns": columns} if columns else {}


def _check_tags(source: SourceFile, name: str, tags: Mapping[str, Any]) -> None:
    role, content = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    if (role, content) not in _TAG_PAIRS:
        raise DataError(
            f"{name} has messages of {role} and {content}; rlhfctl reads role and content, or "
            "from and value",
            _INFO,
            "rename them in the data",
        )
    usual = {
        "user_tag": {"human", "user", "prompter"},
        "assistant_tag": {"gpt", "assistant", "model", "chatgpt", "bing", "bard"},
        "system_tag": {"system"},
        "observation_tag": {"observation", "tool", "function_response"},
    }
    for key, names in usual.items():
        if tags.get(key) and tags[key] not in names:
            reason = "roles are known by their usual names (human, gpt, model, observation)"
            _record(source, f"{name}.tags.{key}", tags[key], reason)


def _record(source: SourceFile, key: str, value: object, reason: str) -> None:
    source.record(f"{_INFO}: {key}", "unsupported", reason=reason, value=value)


def _weigh(source: SourceFile, sections: list[dict[str, Any]]) -> None:
    """Give each source its weight, where the strategy is not to take every row once."""
    strategy = str(source.values.get("mix_strategy") or "concat")
    if strategy == "concat" or len(sections) == 1:
        return
    text = source.values.get("interleave_probs")
    try:
        weights = [float(one) for one in str(text).split(",")] if text else [1.0] * len(sections)
    except ValueError as error:
        raise DataError(f"{text} are no numbers", f"{source.name}: interleave_probs") from error
    if len(weights) != len(sections):
        raise DataError(
            f"{len(weights)} shares of {len(sections)} data sets",
            f"{source.name}: interleave_probs",
        )
    for section, weight in zip(sections, weights, strict=True):
        section["weight"] = weight
    if strategy.startswith("interleave_over"):
        source.set(f"data.{source.stage.data[0]}.oversample", True, "mix_strategy")


def _hold_out(source: SourceFile, kind: str, share: object) -> None:
    if share is None:
        return
    if isinstance(share, float) and 0.0 < share < 1.0:
        source.set(f"data.{kind}.held_out", share, "val_size")
        return
    source.outcomes = [one for one in source.outcomes if one.key != "val_size"]
    reason = (
        "rlhfctl always holds out prompts, a share of 0.1 by default"
        if share == 0
        else f"a number of rows; rlhfctl takes a share: set data.{kind}.held_out"
    )
    source.record("val_size", "left_out" if share == 0 else "unsupported", reason=reason)
