"""Checks of the Hub, the token, and the repositories of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.activity import byte_size
from rlhfctl.data.hub import UNREACHABLE, offline
from rlhfctl.doctor.check import Check
from rlhfctl.downloads.errors import UnreachableError
from rlhfctl.downloads.needs import needed_repositories
from rlhfctl.downloads.sizes import measure
from rlhfctl.errors import RlhfctlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhfctl.recipe.schema import Recipe

_TIMEOUT = 3.0  # seconds


def check_hub(recipe: Recipe | None) -> Iterator[Check]:
    """Check that the Hub answers and takes the token, and the repositories of a recipe."""
    from huggingface_hub.constants import ENDPOINT

    repositories = needed_repositories(recipe) if recipe is not None else []
    if offline():
        yield Check("Hub", "ok", "not asked: offline mode")
        return
    status = _status(ENDPOINT)
    if status is None:
        yield Check(
            "Hub",
            "warn",
            f"{ENDPOINT} cannot be reached",
            "Check the connection, or set HF_ENDPOINT to a mirror; `--offline` uses the cache only.",
        )
        return
    if status >= 500:
        what = f"{ENDPOINT} answers with status {status}"
        yield Check("Hub", "warn", what, "Try again later.")
        return
    yield Check("Hub", "ok", f"{ENDPOINT} answers")
    yield _token(ENDPOINT)
    for repository in repositories:
        try:
            download = measure(repository)
        except UnreachableError as error:
            yield Check(repository.role, "warn", f"{error.where}: {error.what}", error.hint)
        except RlhfctlError as error:
            yield Check(repository.role, "fail", f"{error.where}: {error.what}", error.hint)
        else:
            missing = download.missing_bytes
            state = f"{byte_size(missing)} to download" if missing else "in the cache"
            what = f"{repository.id}: {byte_size(download.total_bytes)}, {state}"
            yield Check(repository.role, "ok", what)


def _token(endpoint: str) -> Check:
    """Check the token, without its value in any text."""
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        return Check("token", "ok", "none; public repositories need none")
    status = _status(f"{endpoint}/api/whoami-v2", token)
    if status == 200:
        return Check("token", "ok", "valid")
    if status == 401:
        remedy = "Run `hf auth login` with a new token, or unset HF_TOKEN."
        return Check("token", "fail", "the Hub refuses it, for public repositories too", remedy)
    return Check("token", "warn", f"not checked: the Hub answered with status {status}")


def _status(address: str, token: str | None = None) -> int | None:
    """Return the status of an answer; None if there is none within `_TIMEOUT`."""
    from huggingface_hub import get_session

    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        response = get_session().get(address, headers=headers, timeout=_TIMEOUT)
    except Exception as error:
        if not {kind.__name__ for kind in type(error).__mro__} & UNREACHABLE:
            raise
        return None
    return int(response.status_code)
