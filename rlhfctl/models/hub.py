"""Location of model files, and error messages for missing ones."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault, UnsafeError
from rlhfctl.recipe.permissions import require_remote_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import ModelSection

_CODE_KEYS = ("auto_map", "_attn_implementation_internal", "_experts_implementation_internal")


def model_source(section: ModelSection) -> str:
    """Return the folder or hub id for a recipe's `model.name_or_path`.

    Raises:
        UnsafeError: The folder's config would run code and the recipe does not allow it.
        EnvironmentFault: The path is not a model folder.
    """
    if section.name_or_path == "embedded":
        from rlhfctl.world.model import embedded_path

        return str(embedded_path())
    path = Path(section.name_or_path).expanduser()
    looks_local = path.is_absolute() or section.name_or_path.startswith((".", "~"))
    if looks_local and not (path / "config.json").is_file():
        raise EnvironmentFault(
            "is not a model folder (it has no config.json)",
            f"model.name_or_path: {section.name_or_path}",
            "Use a folder written by save_pretrained, a hub id, or embedded.",
        )
    if path.is_dir() and not section.trust_remote_code:
        _refuse_code(path)
    return str(path) if path.is_dir() else section.name_or_path


def runs_remote_code(section: ModelSection) -> bool:
    """Return whether code of the model's repository may run: by the recipe and by the user.

    Raises:
        UnsafeError: By the recipe only.
    """
    require_remote_code(section)
    return section.trust_remote_code


def _refuse_code(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    code_keys = [key for key in _CODE_KEYS if key in config]
    if code_keys:
        raise UnsafeError(
            f"the model's config requires running its own code ({', '.join(code_keys)})",
            str(folder / "config.json"),
            "After reviewing that code, set model.trust_remote_code: true and pin model.revision.",
        )


@contextmanager
def hub_errors(source: str, key: str) -> Iterator[None]:
    """Convert exceptions of the hub client and the loaders to errors about `source`.

    Raises:
        EnvironmentFault: The files are missing or unreadable, or the hub is unreachable.
        UnsafeError: The repository requires running its own code.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UnsafeError(
                "the repository requires running its own code",
                f"{key}: {source}",
                "After reviewing it, set model.trust_remote_code: true and pin model.revision.",
            ) from error
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EnvironmentFault(
            f"cannot be loaded: {first_line}",
            f"{key}: {source}",
            "Check the name and the connection; offline (HF_HUB_OFFLINE=1) use a local folder "
            "or fill the hub cache first.",
        ) from error
