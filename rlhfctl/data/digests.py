"""Digests that name entries of the cache: of files, rows, a formatter and the code."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.json_text import parse_json
from rlhfctl.recipe.template_date import with_date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset

    from rlhfctl.data.formatter import Formatter

_LIBRARIES = ("datasets", "jinja2", "pyarrow", "tokenizers", "transformers")
_ROWS = 5000
STORED = "stored-"
"""Beginning of the fingerprint of rows that are determined by it: a part of a cache entry.

`datasets` gives rows that are derived from them another fingerprint, without this beginning.
"""


def digest_of(values: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits of JSON values and of the code that reads and encodes rows."""
    text = json.dumps({"code": _code_digest(), **values}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def files_digest(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the name and the SHA-256 of each file.

    Raises:
        OSError: A file cannot be read.
    """
    digests = []
    for file in files:
        with file.open("rb") as stream:
            digests.append((str(file), hashlib.file_digest(stream, "sha256").hexdigest()))
    return digests


def are_stored(rows: Dataset) -> bool:
    """Return whether rows are a part of a cache entry, which their fingerprint then names."""
    return str(rows._fingerprint).startswith(STORED)


def rows_digest(rows: Dataset) -> str:
    """Return a digest of the names, types and values of rows, in their order.

    Rows that were selected with a name of `STORED` have it already.
    """
    if are_stored(rows):
        return str(rows._fingerprint)
    digest = hashlib.sha256(repr(sorted(rows.features.items())).encode())
    for table in rows.with_format("arrow").iter(batch_size=_ROWS):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def formatter_digest(formatter: Formatter) -> str | None:
    """Return a SHA-256 of all that token ids depend on besides the rows.

    It is None for a tokenizer that cannot be written as one text.
    """
    tokenizer: Any = formatter.tokenizer
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None or not hasattr(core, "to_str"):
        return None
    # Calls set truncation and padding, which encoding sets again.
    content = parse_json(core.to_str()) | {"truncation": None, "padding": None}
    template = formatter.template.source
    parts = {
        "class": type(tokenizer).__qualname__,
        "tokenizer": content,
        "special": tokenizer.special_tokens_map,
        "added": {id_: str(token) for id_, token in tokenizer.added_tokens_decoder.items()},
        "template": with_date(template, formatter.variables),
        "variables": dict(formatter.variables),
        "parse_special": formatter.parse_special,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _code_digest() -> str:
    """Return a digest of the sources of this room and of the libraries' versions."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update(repr([(name, version(name)) for name in _LIBRARIES]).encode())
    return digest.hexdigest()
