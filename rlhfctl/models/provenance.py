"""What a checkpoint was made on, kept beside it, so that stages that do not fit are told apart."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.errors import CheckpointError
from rlhfctl.models.base import base_fingerprint
from rlhfctl.models.tokenizer import tokenizer_digest

if TYPE_CHECKING:
    from pathlib import Path

FILE = "rlhfctl.json"


@dataclass(frozen=True)
class Provenance:
    """The base and the tokenizer of a checkpoint.

    Attributes:
        stage: Which stage wrote it.
        base: Name or path of the base model.
        base_fingerprint: Of `models.base.base_fingerprint`.
        tokenizer_digest: Of `models.tokenizer.tokenizer_digest`: vocabulary, template, pad, EOS.
        stop_token_ids: The tokens that end a response.
    """

    stage: str
    base: str
    base_fingerprint: str
    tokenizer_digest: str
    stop_token_ids: list[int]

    @classmethod
    def of(
        cls, stage: str, base: str, model: Any, tokenizer: Any, stop_token_ids: list[int]
    ) -> Provenance:
        """Describe a stage's base model and tokenizer as they are loaded."""
        return cls(
            stage,
            base,
            base_fingerprint(model),
            tokenizer_digest(tokenizer),
            sorted(stop_token_ids),
        )

    def save(self, folder: Path) -> None:
        """Write beside the checkpoint's weights."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Provenance | None:
        """Read what `save` wrote; None where another tool made the checkpoint.

        Raises:
            CheckpointError: The file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"is damaged: {error}", str(path)) from error

    def differences(self, other: Provenance) -> list[str]:
        """Name what differs from `other`, in words; empty when the two fit together."""
        found = []
        if self.base_fingerprint != other.base_fingerprint:
            names = f"{self.base} against {other.base}"
            found.append(
                f"the base model ({names if self.base != other.base else f'{self.base}, other weights'})"
            )
        if self.tokenizer_digest != other.tokenizer_digest:
            found.append("the tokenizer, its special tokens or its chat template")
        if self.stop_token_ids != other.stop_token_ids:
            found.append(f"the stop tokens ({self.stop_token_ids} against {other.stop_token_ids})")
        return found


def check_fits(folder: Path, current: Provenance) -> None:
    """Refuse a checkpoint that was made on another base or tokenizer.

    Raises:
        CheckpointError: It names what differs.
    """
    saved = Provenance.load(folder)
    differences = saved.differences(current) if saved else []
    if differences:
        raise CheckpointError(
            f"was made with other parts than this recipe's: {'; '.join(differences)}",
            str(folder),
            "Use the recipe it was made with, or train that stage again.",
        )
