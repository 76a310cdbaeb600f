"""Record of a checkpoint's base and tokenizer, to detect stages that do not fit together."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.json_text import parse_json
from rlhfctl.models.base import base_fingerprint
from rlhfctl.models.tokenizer import tokenizer_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FILE = "rlhfctl.json"


@dataclass(frozen=True)
class Provenance:
    """Base and tokenizer of a checkpoint.

    Attributes:
        stage: Stage that wrote it.
        base: Name or path of the base model.
        base_fingerprint: Result of `models.base.base_fingerprint`.
        tokenizer_digest: Result of `models.tokenizer.tokenizer_digest`.
        stop_token_ids: Tokens that end a response, sorted.
    """

    stage: str
    base: str
    base_fingerprint: str
    tokenizer_digest: str
    stop_token_ids: list[int]

    @classmethod
    def of(
        cls,
        stage: str,
        base: str,
        model: Any,
        tokenizer: Any,
        stop_token_ids: list[int],
        variables: Mapping[str, Any] | None = None,
    ) -> Provenance:
        """Return the provenance for a loaded base model and tokenizer.

        Args:
            stage: Stage that writes the checkpoint.
            base: Name or path of the base model.
            model: The base.
            tokenizer: Tokenizer of the run.
            stop_token_ids: Tokens that end a response.
            variables: Variables of the chat template.
        """
        return cls(
            stage,
            base,
            base_fingerprint(model),
            tokenizer_digest(tokenizer, variables),
            sorted(stop_token_ids),
        )

    def save(self, folder: Path) -> None:
        """Write to the checkpoint's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Provenance | None:
        """Read the file written by `save`; return None for checkpoints of other tools.

        Raises:
            CheckpointError: The file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return cls(**parse_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"is damaged: {error}", str(path)) from error

    def differences(self, other: Provenance) -> list[str]:
        """Return descriptions of the differences from `other`; empty if the two fit."""
        differences = []
        if self.base_fingerprint != other.base_fingerprint:
            renamed = self.base != other.base
            detail = f"and {other.base}" if renamed else "with other weights"
            differences.append(f"the base model ({self.base} {detail})")
        if self.tokenizer_digest != other.tokenizer_digest:
            differences.append("the tokenizer, its special tokens or its chat template")
        if self.stop_token_ids != other.stop_token_ids:
            differences.append(
                f"the stop tokens ({self.stop_token_ids} and {other.stop_token_ids})"
            )
        return differences


def check_tokens(
    folder: Path,
    tokenizer: Any,
    stop_token_ids: Sequence[int],
    variables: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a checkpoint of another tokenizer or other stop tokens, before any weights load.

    Args:
        folder: The checkpoint.
        tokenizer: Tokenizer of the recipe.
        stop_token_ids: Stop tokens of the recipe.
        variables: Variables of the chat template.

    Raises:
        CheckpointError: Tokenizer or stop tokens differ, or the record is damaged.
    """
    saved = Provenance.load(folder)
    if saved is not None:
        current = replace(
            saved,
            tokenizer_digest=tokenizer_digest(tokenizer, variables),
            stop_token_ids=sorted(stop_token_ids),
        )
        check_fits(folder, current)


def check_fits(folder: Path, current: Provenance) -> None:
    """Refuse a checkpoint of another base or tokenizer.

    Raises:
        CheckpointError: Base, tokenizer or stop tokens differ.
    """
    saved = Provenance.load(folder)
    differences = saved.differences(current) if saved else []
    if differences:
        raise CheckpointError(
            f"does not match this recipe; differences: {'; '.join(differences)}",
            str(folder),
            "Use the recipe of that checkpoint, or train its stage again.",
        )
