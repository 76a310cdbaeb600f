"""Upload of an export to the Hugging Face Hub: listed files only, private unless asked otherwise."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import EnvironmentFault, UnsafeError, UsageError
from rlhfctl.export.card import CARD, for_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.export.options import ExportOptions, PushOptions
    from rlhfctl.recipe.schema import ModelSection

ALLOWED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "score_normalization.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    CARD,
)
"""Names that are uploaded; nothing else is: no optimiser, no state for resuming, no arguments."""
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ATTEMPTS = 5
FIRST_PAUSE = 2.0
"""Seconds before the second attempt; each pause is twice the one before."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Upload:
    """Files of an upload.

    Attributes:
        files: Name in the repository -> bytes.
        left_out: Names in the folder that are not uploaded.
    """

    files: dict[str, int]
    left_out: tuple[str, ...]


def files_to_upload(folder: Path) -> Upload:
    """Return the files of an export that may be uploaded: known names at its top, no links.

    Args:
        folder: The export.
    """
    entries = sorted(path for path in folder.rglob("*") if path.is_file())
    allowed = [path for path in entries if _is_allowed(path, folder)]
    rest = tuple(path.relative_to(folder).as_posix() for path in entries if path not in allowed)
    return Upload({path.name: path.stat().st_size for path in allowed}, rest)


def _is_allowed(path: Path, folder: Path) -> bool:
    top = path.parent == folder and not path.is_symlink()
    return top and any(fnmatch(path.name, pattern) for pattern in ALLOWED)


def require_repository(options: PushOptions) -> None:
    """Check the name of the repository.

    Raises:
        UsageError: It is missing or no name of the Hub.
    """
    if not options.repository:
        raise UsageError("no repository is named", hint="add --repo OWNER/NAME")
    if not _REPOSITORY.fullmatch(options.repository):
        raise UsageError(
            "is not a repository name of the Hub",
            f"--repo {options.repository}",
            "use OWNER/NAME, with letters, digits, dots, dashes and underscores",
        )


def require_public_base(options: ExportOptions, section: ModelSection, *, adapter: bool) -> None:
    """Refuse an adapter whose base others cannot load.

    Args:
        options: Form of the export; may state the base's Hub id.
        section: The base.
        adapter: Whether the stage's model is an adapter.

    Raises:
        UsageError: The base is a folder of this machine.
    """
    if not adapter or options.whole or options.card.base_model is not None:
        return
    if section.name_or_path == "embedded" or Path(section.name_or_path).expanduser().exists():
        raise UsageError(
            "an adapter loads on its base only, and this base is on this machine",
            f"model.name_or_path: {section.name_or_path}",
            "add --merge, or name the base's repository with --base-model OWNER/NAME",
        )


def token() -> str:
    """Return the access token from the environment.

    Raises:
        EnvironmentFault: There is none.
    """
    for name in TOKEN_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    raise EnvironmentFault(
        "there is no access token to upload with",
        hint=f"set {TOKEN_VARIABLES[0]} to a token with write access; there is no option for it, since "
        "command lines are visible to other users",
    )


def push(folder: Path, options: PushOptions) -> str:
    """Upload an export; a call that failed can be repeated, and sends only what is missing.

    Args:
        folder: The export; its card is adapted to the repository.
        options: Destination.

    Returns:
        Address of the repository.

    Raises:
        EnvironmentFault: There is no token, or the Hub refuses it or cannot be reached.
        UnsafeError: The repository exists and is public, and --public is not set.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token(), library_name="rlhfctl")
    upload = files_to_upload(folder)
    card = folder / CARD
    text = for_repository(card.read_text(encoding="utf-8"), options.repository)
    card.write_text(text, encoding="utf-8")

    def attempt() -> str:
        address = api.create_repo(options.repository, private=not options.public, exist_ok=True)
        _require_private(api, options)
        api.upload_folder(
            repo_id=options.repository,
            folder_path=folder,
            allow_patterns=list(upload.files),
            commit_message="Upload by rlhfctl",
        )
        return str(address)

    return _retried(attempt, options.repository)


def _require_private(api: Any, options: PushOptions) -> None:
    if not options.public and not api.repo_info(options.repository).private:
        raise UnsafeError(
            "the repository exists and is public",
            f"--repo {options.repository}",
            "add --public to upload to it all the same, or name another repository",
        )


def _retried(attempt: Callable[[], str], repository: str) -> str:
    """Return the result of an upload, after pauses if the Hub is temporarily unable.

    Raises:
        EnvironmentFault: The Hub refuses the request, or all attempts failed.
    """
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError

    remote = (HfHubHTTPError, TransportError, ConnectionError)
    pause = FIRST_PAUSE
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except (*remote, RuntimeError) as error:
            # The client wraps the error of one file's upload in a RuntimeError.
            cause = error if isinstance(error, remote) else error.__cause__
            if not isinstance(cause, remote):
                raise
            status = getattr(getattr(cause, "response", None), "status_code", None)
            if number == ATTEMPTS or (status is not None and status not in _TEMPORARY):
                raise _refused(cause, status, repository) from error
        time.sleep(pause)
        pause *= 2
    raise AssertionError


def _refused(error: BaseException, status: int | None, repository: str) -> EnvironmentFault:
    hints = {
        401: f"{TOKEN_VARIABLES[0]} is not a valid token",
        403: f"the token has no write access to {repository}",
        404: f"the token's owner has no access to {repository}",
    }
    first = str(error).strip().splitlines() or [type(error).__name__]
    return EnvironmentFault(
        f"the upload failed: {first[0]}",
        repository,
        hints.get(status or 0, "repeat the command: files that have arrived are not sent again"),
    )
