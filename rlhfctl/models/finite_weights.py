"""Refusal of given weights that are NaN or infinite, by file and tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.finite import first_not_finite
from rlhfctl.models.device import device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_SAFETENSORS = "*.safetensors"


def require_finite_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse the tensors of a file if one has a NaN or an infinite number.

    Raises:
        CheckpointError: Names the file and the tensor.
    """
    name = first_not_finite(tensors)
    if name is not None:
        raise _damaged(name, path)


def require_finite_model(
    model: Any, source: str, revision: str | None, *, quantized: bool = False
) -> None:
    """Refuse a loaded model if a weight is NaN or infinite.

    The weights are checked on their device, which takes a pass over memory. Quantisation hides NaN,
    so the files of a quantised model are read instead. Buffers may be infinite, such as the bounds of
    Gemma 4's clipped layers.

    Args:
        model: Model as loaded.
        source: Folder or hub id that it was loaded from.
        revision: Revision on the hub.
        quantized: Whether its linear layers are quantised.

    Raises:
        CheckpointError: Names the file, if it is found, and the tensor.
    """
    name = first_not_finite(dict(model.named_parameters()))
    if name is None and not quantized:
        return
    for path in _files(source, revision):
        with safe_open(path, framework="pt", device=str(device())) as file:
            keys = list(file.keys())
            for key in _parameters(model, keys) if quantized else _saved_as(name or "", keys):
                require_finite_tensors({key: file.get_tensor(key)}, path)
    if name is not None:
        # Finite in the file: the dtype that it was loaded in cannot hold it.
        dtype = dict(model.named_parameters())[name].dtype
        raise _damaged(name, Path(source), f" as {str(dtype).removeprefix('torch.')}")


def _parameters(model: Any, keys: list[str]) -> list[str]:
    """Return the saved names that are no buffers of a model."""
    buffers = {key for name, _ in model.named_buffers() for key in _saved_as(name, keys)}
    return [key for key in keys if key not in buffers]


def _saved_as(name: str, keys: list[str]) -> Iterator[str]:
    """Yield the saved names of a parameter, which may lack the beginning of its name."""
    return (key for key in keys if f".{name}".endswith(f".{key}") or key.endswith(f".{name}"))


def _files(source: str, revision: str | None) -> list[Path]:
    """Return the weight files of a folder, or of a hub model in the cache; none if unreadable."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        # Not by snapshot_download, which raises where a file of the repository was left out.
        config = try_to_load_from_cache(source, "config.json", revision=revision)
        if not isinstance(config, str):
            return []
        folder = Path(config).parent
    return sorted(path for path in folder.glob(_SAFETENSORS) if _readable(path))


def _readable(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _damaged(name: str, path: Path, how: str = "") -> CheckpointError:
    return CheckpointError(
        f"tensor {name} has NaN or infinite numbers{how}",
        str(path),
        "Restore the file from a copy, or train it again.",
    )
