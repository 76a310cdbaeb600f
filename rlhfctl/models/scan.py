"""Scan of a model or adapter folder for what would run code or reach outside it, before a load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError, UnsafeError
from rlhfctl.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CODE_KEYS = frozenset(
    {"auto_map", "_attn_implementation_internal", "_experts_implementation_internal"}
)
_MEGATRON = "megatron.core"
"""Default of peft's `megatron_core`, which peft imports if `megatron_config` is set."""
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_CONFIGS = ("config.json", "*_config.json")


def scan_folder(folder: Path, *, remote_code: bool = False) -> None:
    """Refuse a folder with links out of it, configs that run code, or weights in pickles only.

    Args:
        folder: Folder of a model or adapter; it may itself be a link, or a snapshot in the Hub's
            cache, whose links lead to the cache's blobs.
        remote_code: Whether the user allowed the code of the model's repository.

    Raises:
        UnsafeError: Names the file and the reason.
        CheckpointError: A config is damaged.
    """
    _check_links(folder)
    for path in sorted({path for pattern in _CONFIGS for path in folder.glob(pattern)}):
        check_config(path, remote_code=remote_code)
    names = [path.name for path in folder.iterdir() if path.suffix in _PICKLES]
    weights = [name for name in names if "model" in name]
    if weights and not any(folder.glob("*.safetensors")):
        raise UnsafeError(
            "the weights are a pickle, which can run code when it is read",
            str(folder / min(weights)),
            "Convert them with save_pretrained, or name a revision that has safetensors.",
        )


def check_config(path: Path, *, remote_code: bool = False) -> None:
    """Refuse a config that names code, at any depth.

    Raises:
        UnsafeError: Names the file and the keys.
        CheckpointError: The file is no JSON.
    """
    try:
        config = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot be read as JSON: {error}", str(path), "Restore the file from its source."
        ) from error
    code_keys = sorted(set(_code(config, remote_code=remote_code)))
    if code_keys:
        raise UnsafeError(
            f"the config requires running code that is not part of its library ({', '.join(code_keys)})",
            str(path),
            "After reviewing that code, set model.trust_remote_code: true, pin model.revision and "
            "add --allow-remote-code.",
        )


def _code(value: Any, *, remote_code: bool) -> Iterator[str]:
    """Yield the keys that name code, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _code(item, remote_code=remote_code)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if (
            (key in _CODE_KEYS and item and not (remote_code and _is_of_repository(key, item)))
            or (key == "megatron_config" and item)
            or (key == "megatron_core" and item not in (None, _MEGATRON))
            or (key == "trust_remote_code" and item and not remote_code)
        ):
            yield key
        else:
            yield from _code(item, remote_code=remote_code)


def _is_of_repository(key: str, item: Any) -> bool:
    """Return whether code is of the model's own repository, whose commit is pinned."""
    return key == "auto_map" and "--" not in str(item)


def _check_links(folder: Path) -> None:
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    for path in folder.rglob("*"):
        if not path.is_symlink():
            continue
        try:
            target = path.resolve()
        except (OSError, RuntimeError):  # a loop of links
            target = None
        if target is None or not any(target.is_relative_to(inside) for inside in allowed):
            raise UnsafeError(
                "the link leads out of its folder",
                str(path),
                "Replace it by a copy of the file that is meant.",
            )
