"""Where the embedded model and its tokenizer lie."""

from __future__ import annotations

from pathlib import Path


def embedded_path() -> Path:
    """Folder of the shipped model: an ordinary Hugging Face checkpoint with its tokenizer."""
    return Path(__file__).parent / "assets"
