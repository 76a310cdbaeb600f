"""Path of the embedded model and its tokenizer."""

from __future__ import annotations

from pathlib import Path


def embedded_path() -> Path:
    """Folder of the shipped model, a Hugging Face checkpoint with its tokenizer."""
    return Path(__file__).parent / "assets"
