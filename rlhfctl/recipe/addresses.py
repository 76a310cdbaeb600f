"""Addresses of servers in recipes, which are stored with results and so must hold no secret."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from rlhfctl.errors import RecipeError

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s\"']*@")
_QUERY = re.compile(r"(://[^\s\"'?#]*)[?#][^\s\"']*")


def variable_fault(name: str | None) -> str | None:
    """Return why an `api_key_env` cannot stand in a recipe, without quoting it; None if it can."""
    # A `pattern` on the field would quote the value, perhaps the key itself, in its error.
    if name is None or _VARIABLE.fullmatch(name):
        return None
    return (
        "api_key_env must be the name of an environment variable, such as JUDGE_KEY, never the key "
        "itself"
    )


def authorization(variable: str | None, where: str) -> dict[str, str]:
    """Return the headers with the key of an environment variable; none for None.

    Args:
        variable: Name of the environment variable.
        where: Recipe key of the section, for the error.

    Raises:
        RecipeError: The variable is not set.
    """
    if variable is None:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RecipeError(
            f"the environment variable {variable} is not set",
            f"{where}.api_key_env",
            "Set it to the server's key, or leave api_key_env out for a server without one.",
        )
    return {"Authorization": f"Bearer {key}"}


def address_fault(address: str, key: str) -> str | None:
    """Return why an address cannot stand in a recipe, as a sentence without it; None if it can.

    Args:
        address: An http(s) address.
        key: Its recipe key.
    """
    try:
        parts = urlsplit(address)
        secret = "@" in parts.netloc or bool(parts.query or parts.fragment)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text quotes the address
        return f"{key} is not a valid http(s) address"
    if secret:
        return (
            f"{key} must not contain a user name, a password or a query, since recipes are stored "
            "with results; put the key in the environment variable of api_key_env"
        )
    usable = usable and parts.scheme in {"http", "https"}
    return None if usable else f"{key} is not a valid http(s) address"


def has_credentials(text: str) -> bool:
    """Return whether an address in a text has a user name or a password."""
    return _CREDENTIALS.search(text) is not None


def without_secrets(text: str) -> str:
    """Return a text without what stands in its addresses for user, password or query."""
    return _QUERY.sub(r"\1?***", _CREDENTIALS.sub("***@", text))
