"""Location of model files, and error messages for missing ones."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault, UnsafeError
from rlhfctl.hub_commits import note_loaded
from rlhfctl.models.scan import scan_folder
from rlhfctl.recipe.permissions import require_remote_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import ModelSection

_BROKEN = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors that loaders raise on damaged or hostile files."""
_FOREIGN = ("Exception", "SafetensorError")


def model_source(section: ModelSection) -> str:
    """Return the folder or hub id for a recipe's `model.name_or_path`.

    Raises:
        UnsafeError: The folder's config would run code and the recipe does not allow it, or a link
            leads out of the folder.
        CheckpointError: A config of the folder is damaged.
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
    if path.is_dir():
        scan_folder(path, remote_code=section.trust_remote_code)
    return str(path) if path.is_dir() else section.name_or_path


def note_repository(source: str, revision: str | None) -> None:
    """Remember the commit of a model whose config was just loaded, if it is of the Hub.

    The Hub's cache, where the config is now, has a folder per commit.
    """
    if Path(source).is_dir():
        return
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json", revision=revision)
    if isinstance(config, str):
        note_loaded("model", source, revision, Path(config).parent.name)


def runs_remote_code(section: ModelSection) -> bool:
    """Return whether code of the model's repository may run: by the recipe and by the user.

    Raises:
        UnsafeError: By the recipe only.
    """
    require_remote_code(section)
    return section.trust_remote_code


@contextmanager
def hub_answers(source: str) -> Iterator[None]:
    """Convert a request without an answer to an error about a model.

    Raises:
        EnvironmentFault: The Hub cannot be reached.
    """
    try:
        yield
    except Exception as error:
        # The Hub's client lets the errors of its HTTP library through.
        if "TransportError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise EnvironmentFault(
            "is not on this machine, and the Hub cannot be reached",
            f"model.name_or_path: {source}",
            "Check the connection, or set HF_ENDPOINT to a mirror; without a network use a local "
            "folder, or `rlhfctl fetch` where there is one.",
        ) from error


@contextmanager
def hub_errors(source: str, key: str) -> Iterator[None]:
    """Convert exceptions of the hub client and the loaders to errors about `source`.

    Raises:
        EnvironmentFault: The files are missing or unreadable, or the hub is unreachable.
        UnsafeError: The repository requires running its own code.
    """
    try:
        yield
    except Exception as error:
        # The tokenizers library raises plain Exceptions, and safetensors a class of its own.
        if not isinstance(error, _BROKEN) and type(error).__name__ not in _FOREIGN:
            raise
        if "trust_remote_code" in str(error):
            raise UnsafeError(
                "the repository requires running its own code",
                f"{key}: {source}",
                "After reviewing it, set model.trust_remote_code: true, pin model.revision and "
                "add --allow-remote-code.",
            ) from error
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EnvironmentFault(
            f"cannot be loaded: {first_line}",
            f"{key}: {source}",
            "Check the name and the connection; offline (HF_HUB_OFFLINE=1) use a local folder "
            "or fill the hub cache first.",
        ) from error
