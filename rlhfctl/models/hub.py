"""Where a model's files come from, and what their absence is called."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault, UnsafeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import ModelSection

_CODE_KEYS = ("auto_map", "_attn_implementation_internal", "_experts_implementation_internal")


def model_source(section: ModelSection) -> str:
    """Return the folder or hub id that a recipe's `model.name_or_path` stands for.

    Raises:
        UnsafeError: The folder's config would run code and the recipe does not allow it.
        EnvironmentFault: A path is named that is no model folder.
    """
    if section.name_or_path == "embedded":
        from rlhfctl.world.model import embedded_path

        return str(embedded_path())
    path = Path(section.name_or_path).expanduser()
    looks_local = path.is_absolute() or section.name_or_path.startswith((".", "~"))
    if looks_local and not (path / "config.json").is_file():
        raise EnvironmentFault(
            "is no model folder (it has no config.json)",
            f"model.name_or_path: {section.name_or_path}",
            "Give a folder that save_pretrained wrote, a hub id, or embedded.",
        )
    if path.is_dir() and not section.trust_remote_code:
        _refuse_code(path)
    return str(path) if path.is_dir() else section.name_or_path


def _refuse_code(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    found = [key for key in _CODE_KEYS if key in config]
    if found:
        raise UnsafeError(
            f"the model's config asks to run its own code ({', '.join(found)})",
            str(folder / "config.json"),
            "If you have read that code: model.trust_remote_code: true, with model.revision pinned.",
        )


@contextmanager
def hub_errors(source: str, key: str) -> Iterator[None]:
    """Turn what the hub client and the loaders raise into one sentence about `source`.

    Raises:
        EnvironmentFault: The files are not there, not readable, or the hub is out of reach.
        UnsafeError: The repository wants to run its own code.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UnsafeError(
                "the repository wants to run its own code",
                f"{key}: {source}",
                "If you have read it: model.trust_remote_code: true, with model.revision pinned.",
            ) from error
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EnvironmentFault(
            f"cannot be loaded: {first_line}",
            f"{key}: {source}",
            "Check the name and the connection; offline (HF_HUB_OFFLINE=1) give a local folder "
            "or fill the hub cache first.",
        ) from error
