"""Licence of a base, from its own model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.models.hub import model_source

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection

_CARD = "README.md"
_OWN = "apache-2.0"
"""Licence of the embedded model, which is part of this package."""


def base_licence(section: ModelSection) -> str | None:
    """Return the licence that a base's card names; None if there is no card or it names none.

    A Hub model's card is read from the Hub, or offline from the cache. It is never guessed.

    Args:
        section: The base.
    """
    if section.name_or_path == "embedded":
        return _OWN
    path = _card_path(section)
    if path is None:
        return None
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(path.read_text(encoding="utf-8")).data
    except (OSError, ValueError, TypeError):
        return None
    name = data.get("license")
    return str(name) if isinstance(name, str) and name else None


def _card_path(section: ModelSection) -> Path | None:
    source = model_source(section)
    if Path(source).is_dir():
        card = Path(source) / _CARD
        return card if card.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, _CARD, revision=section.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError):
        return None
