"""Reward model from elsewhere: a sequence classifier with its own tokenizer and template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError, RecipeError
from rlhfctl.models.base import keep_backward, quantization_config
from rlhfctl.models.device import device, effective_dtype
from rlhfctl.models.foreign_files import ForeignFiles
from rlhfctl.models.foreign_inputs import ForeignInputs
from rlhfctl.models.hub import hub_errors
from rlhfctl.recipe.schema import ModelSection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rlhfctl.models.foreign_inputs import Prompt
    from rlhfctl.recipe.reward_sources import RewardModelLoading

_HEADS = ("lm_head", "score", "classifier")


class ForeignScorer:
    """A one-output sequence classifier that scores prompts with responses, given as text.

    Attributes:
        inputs: Formats and tokenises its inputs.
        revision: Commit of a Hub model; empty for a folder.
    """

    def __init__(self, model: Any, inputs: ForeignInputs, batch_size: int, revision: str) -> None:
        """Store the model, in evaluation mode and without gradients."""
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.inputs = inputs
        self.batch_size = batch_size
        self.revision = revision
        self._configured_pad: int | None = model.config.get_text_config().pad_token_id

    @classmethod
    def load(cls, source: str, loading: RewardModelLoading, key: str) -> ForeignScorer:
        """Load a reward model onto this process's device.

        Args:
            source: `hub:ID` or a folder.
            loading: Precision, template and limits.
            key: Recipe key of the source, for errors.

        Raises:
            CheckpointError: It is no sequence classifier with one output, or lacks files.
            EnvironmentFault: It cannot be downloaded or loaded.
            RecipeError: The chat template cannot be read, or is needed and missing.
            UnsafeError: It needs its own code, or has weights in pickle files only.
        """
        files = ForeignFiles.find(source, loading, key)
        tokenizer, chat = _tokenizer(files, loading)
        inputs = ForeignInputs(
            tokenizer,
            files.where,
            chat=chat,
            append_eos=loading.append_eos,
            max_length=loading.max_length or files.limit,
        )
        revision = files.folder.name if source.startswith("hub:") else ""
        return cls(_classifier(files, loading), inputs, loading.batch_size, revision)

    @torch.no_grad()
    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Return the raw scores, [B] in fp32, as the classifier gives each text alone.

        Raises:
            CheckpointError: A score is not finite, or a prompt is a conversation and there is no
                chat template.
            DataError: The chat template refuses a conversation.
        """
        rows = self.inputs.ids(prompts, responses)
        # Rows of similar length share a pass, which saves padding.
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        scores = torch.empty(len(rows), device=device())
        for start in range(0, len(rows), self.batch_size):
            part = order[start : start + self.batch_size]
            scores[part] = self._forward([rows[row] for row in part])
        if not torch.isfinite(scores).all():
            raise CheckpointError(
                "the reward model gave a score that is NaN or infinite",
                self.inputs.where,
                "Load it with dtype: float32, or use another one.",
            )
        return scores

    def _forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, rows))
        pad = self._pad(rows)
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device())
        lengths = torch.tensor([len(row) for row in rows], device=device())
        mask = (torch.arange(width, device=device())[None, :] < lengths[:, None]).long()
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits[:, 0].float()

    def _pad(self, rows: Sequence[Sequence[int]]) -> int:
        """Return the id of padding; decoders read the score at the last token that differs.

        A model without a pad token reads it at the very last one. Then an id that no row has stands
        in, so that each row's last token still is the one.
        """
        if self._configured_pad is not None:
            return self._configured_pad
        config = self.model.config.get_text_config()
        if len(rows) == 1:
            config.pad_token_id = None
            return 0
        used = {token for row in rows for token in row}
        config.pad_token_id = next(
            (token for token in range(config.vocab_size) if token not in used), None
        )
        if config.pad_token_id is None:
            raise CheckpointError(
                "the model has no pad token, and a batch has every token of its vocabulary",
                self.inputs.where,
                "Set batch_size: 1, or pad_token_id in its config.json.",
            )
        return int(config.pad_token_id)


def _tokenizer(files: ForeignFiles, loading: RewardModelLoading) -> tuple[Any, bool]:
    """Return the tokenizer, and whether inputs are conversations in its template."""
    from transformers import AutoTokenizer

    with hub_errors(str(files.folder), files.where):
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
    if loading.chat_template is not None:
        path = Path(loading.chat_template).expanduser()
        try:
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the chat template cannot be read: {error}", str(path)) from error
    has_template = bool(tokenizer.chat_template)
    if loading.input_format == "chat" and not has_template:
        raise RecipeError(
            "input_format is chat, and the reward model's tokenizer has no chat template",
            files.where,
            "Give one with chat_template, or set input_format: text.",
        )
    return tokenizer, has_template and loading.input_format != "text"


def _classifier(files: ForeignFiles, loading: RewardModelLoading) -> Any:
    from transformers import AutoModelForSequenceClassification, logging

    section = ModelSection(dtype=loading.dtype, quantization=loading.quantization)
    verbosity = logging.get_verbosity()
    # Missing weights are refused below, by name.
    logging.set_verbosity_error()
    try:
        with hub_errors(str(files.folder), files.where):
            model, report = AutoModelForSequenceClassification.from_pretrained(
                files.folder,
                dtype=effective_dtype(section),
                quantization_config=quantization_config(section, _HEADS),
                device_map={"": device()},
                use_safetensors=True,
                output_loading_info=True,
            )
    finally:
        logging.set_verbosity(verbosity)
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"its weights lack {', '.join(missing[:5])}, which would be random",
            files.where,
            "Name a trained sequence classifier.",
        )
    model.config.get_text_config().use_cache = False
    # The repacked layout also computes in bfloat16 whatever the dtype, and not for every width.
    keep_backward(model)
    _score_in_fp32(model)
    return model


def _score_in_fp32(model: Any) -> None:
    """Compute a linear head named `score` in fp32: bfloat16 has 3 digits, too few for a score."""
    head = getattr(model, "score", None)
    if isinstance(head, torch.nn.Linear):
        head.float()
        head.register_forward_pre_hook(lambda _, arguments: (arguments[0].float(),))
