"""Export of a checkpoint as an adapter or a whole model, checked by loading it again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError, EnvironmentFault, UsageError
from rlhfctl.export import gguf, ollama, serving
from rlhfctl.export.card import write_card
from rlhfctl.export.comparison import compare, comparison_rows, require_close
from rlhfctl.export.options import ExportResult
from rlhfctl.export.serving_files import write_serving_files
from rlhfctl.models import adapters
from rlhfctl.models.device import device, effective_dtype
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.merging import (
    load_language_model,
    load_reward_model,
    logits_at_last_token,
    merged,
    stored_dtype,
    unquantised,
)
from rlhfctl.models.provenance import check_fits, check_tokens
from rlhfctl.models.scan import scan_folder
from rlhfctl.stage_table import REWARD_MODEL
from rlhfctl.stages.shared.stage_context import open_stage_context, set_exported_pad

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.export.options import ExportOptions, LogitComparison
    from rlhfctl.pipeline.finished import FinishedRun
    from rlhfctl.recipe.schema import ModelSection
    from rlhfctl.stages.shared.stage_context import StageContext

_ADAPTER_FILES = (adapters.WEIGHTS, adapters.CONFIG)
_NORMALISATION = "score_normalization.json"


def export(run: FinishedRun, options: ExportOptions, output: Path) -> ExportResult:
    """Export the model of a stage, check its outputs, and write its card.

    Args:
        run: The run.
        options: Form of the export.
        output: Folder to create; it may be empty, and appears only once it is complete.

    Raises:
        UsageError: The options contradict one another, or the folder is not empty.
        CheckpointError: The stage has no intact result, or the base is not the one it was trained on.
        EnvironmentFault: A converter is missing, or refuses the model.
        DivergedError: The export's outputs differ from the checkpoint's.
    """
    options.check()
    _require_free(output)
    recipe = run.recipe_of(options.stage)
    folder = run.checkpoint(options.stage, best=options.best)
    converter = gguf.converter(options.converter) if options.gguf or options.ollama else None
    context = open_stage_context(recipe)
    scan_folder(folder, remote_code=recipe.model.trust_remote_code)
    check_tokens(
        folder, context.tokenizer, context.stop_token_ids, recipe.model.chat_template_kwargs
    )
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        writer = _Writer(run, context, folder, options, staging)
        result = writer.whole() if writer.is_whole else writer.adapter()
        if converter is not None:
            result = _converted(result, context, options, converter)
        result = replace(result, commands=serving.commands(result, context, options, output))
        write_card(run, options, context, result)
        if output.is_dir():
            output.rmdir()
        staging.rename(output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return replace(result, folder=output, files=_sizes(output))


class _Writer:
    """One export under way.

    Args:
        run: The run.
        context: Tokenizer and recipe of the stage.
        checkpoint: Folder of the stage's model.
        options: Form of the export.
        folder: Where it is written.
    """

    def __init__(
        self,
        run: FinishedRun,
        context: StageContext,
        checkpoint: Path,
        options: ExportOptions,
        folder: Path,
    ) -> None:
        self.run, self.context, self.options = run, context, options
        self.checkpoint, self.folder = checkpoint, folder
        self.scores = options.stage == REWARD_MODEL.name
        # Scores are read at the token that ends a response.
        end = [context.stop_token_ids[0]] if self.scores else []
        self.rows = [row + end for row in comparison_rows(context)]

    @property
    def is_whole(self) -> bool:
        """True if a whole model is written: on request, or since the checkpoint is one."""
        return self.options.whole or not adapters.is_adapter(self.checkpoint)

    def whole(self) -> ExportResult:
        """Write the merged model, and compare it with the checkpoint on the same base."""
        section = self.context.recipe.model
        dtype = self.options.dtype or stored_dtype(section)
        plain = unquantised(section, dtype)
        model = self._load(plain, self.checkpoint)
        self._require_base(model)
        before = logits_at_last_token(model, self.rows)
        base = self._without_adapter(model)
        whole = merged(model)
        self._save(whole, getattr(torch, dtype))
        del whole, model
        after = logits_at_last_token(self._reloaded(dtype), self.rows)
        comparison = compare(before, after, dtype, base)
        require_close(comparison, dtype)
        form = "a sequence classifier" if self.scores else "a whole language model"
        return self._result(form, dtype, comparison)

    def adapter(self) -> ExportResult:
        """Copy the adapter with its tokenizer, and compare it with the checkpoint."""
        section = self.context.recipe.model
        for name in _ADAPTER_FILES:
            shutil.copyfile(self.checkpoint / name, self.folder / name)
        adapters.rewrite_config(
            self.folder,
            {"base_model_name_or_path": serving.base_name(section, self.options)},
        )
        write_serving_files(self.context, self.folder, generates=not self.scores)
        self._copy_normalisation()
        model = self._load(section, self.checkpoint)
        self._require_base(model)
        before = logits_at_last_token(model, self.rows)
        base = self._without_adapter(model)
        del model
        after = logits_at_last_token(self._load(section, self.folder), self.rows)
        comparison = compare(before, after, "float32", base)
        require_close(comparison, "float32")
        dtype = str(effective_dtype(section)).removeprefix("torch.")
        return self._result("a LoRA adapter", dtype, comparison)

    def _load(self, section: ModelSection, folder: Path) -> Any:
        if self.scores:
            return load_reward_model(section, folder, self.context.padding.token_id)
        return load_language_model(section, folder)

    def _require_base(self, model: Any) -> None:
        """Refuse a base whose weights are not those that the adapter was trained on."""
        if adapters.is_adapter(self.checkpoint):
            check_fits(
                self.checkpoint, self.context.provenance(self.options.stage, model.get_base_model())
            )

    def _without_adapter(self, model: Any) -> torch.Tensor | None:
        if self.scores or not adapters.is_adapter(self.checkpoint):
            return None
        with model.disable_adapter():
            return logits_at_last_token(model, self.rows)

    def _save(self, whole: Any, dtype: torch.dtype) -> None:
        if self.scores and not whole.has_own_class:
            raise EnvironmentFault(
                f"transformers has no sequence classifier for {whole.config.model_type}, so no "
                "other program could load the merged reward model",
                self.context.recipe.model.name_or_path,
                "leave out --merge: rlhfctl.models.scorer loads the adapter",
            )
        whole = whole.to(dtype)
        whole.config.dtype = dtype
        config = whole.config.get_text_config()
        stops = list(self.context.stop_token_ids)
        config.eos_token_id = stops[0] if len(stops) == 1 else stops
        if self.scores:
            # vLLM applies a sigmoid to a classifier with one output unless it is a regression.
            whole.config.problem_type = "regression"
        config.pad_token_id = self.context.padding.exported_id
        set_exported_pad(self.context.padding, whole, "SEQ_CLS" if self.scores else "CAUSAL_LM")
        whole.save_pretrained(str(self.folder))
        write_serving_files(self.context, self.folder, generates=not self.scores)
        self._copy_normalisation()

    def _copy_normalisation(self) -> None:
        if self.scores:
            ScoreNormalization.load(self.checkpoint).save(self.folder)

    def _reloaded(self, dtype: str) -> Any:
        """Load the written folder by transformers alone, as other programs do."""
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        kind = AutoModelForSequenceClassification if self.scores else AutoModelForCausalLM
        try:
            model = kind.from_pretrained(
                str(self.folder),
                dtype=getattr(torch, dtype),
                trust_remote_code=self.context.recipe.model.trust_remote_code,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the exported model does not load: {error}", str(self.folder)
            ) from error
        return model.to(device()).eval()

    def _result(self, form: str, dtype: str, comparison: LogitComparison) -> ExportResult:
        return ExportResult(
            self.folder, form, dtype, _sizes(self.folder), comparison, {}, self._notes(comparison)
        )

    def _notes(self, comparison: LogitComparison) -> tuple[str, ...]:
        notes = []
        trained = self.run.record(self.options.stage).recipe_part["model"]["quantization"]
        if self.options.whole and trained in {"4bit", "8bit", "auto"}:
            notes.append(
                f"trained with model.quantization: {trained}; merged into the unquantised base"
            )
        if comparison.training is not None and comparison.largest > comparison.training / 2:
            notes.append(
                f"rounding changes the logits by up to {comparison.largest:.3g}, and training did by "
                f"up to {comparison.training:.3g}: most of its effect is lost; use --dtype float32"
            )
        if self.scores:
            normalisation = ScoreNormalization.load(self.checkpoint)
            notes.append(
                f"scores are raw; PPO's reward is (score {-normalisation.mean:+.6g}) / "
                f"{normalisation.deviation:.6g} ({_NORMALISATION})"
            )
        return tuple(notes)


def _converted(
    result: ExportResult, context: StageContext, options: ExportOptions, converter: gguf.Converter
) -> ExportResult:
    """Add the GGUF file and the Modelfile to a whole model."""
    file = gguf.convert(converter, result.folder, options.gguf or "f16", context)
    if options.ollama:
        ollama.write_modelfile(result.folder, file, context)
    return replace(result, files=_sizes(result.folder))


def _require_free(output: Path) -> None:
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UsageError(
            "the folder for the export is not empty" if output.is_dir() else "is a file",
            str(output),
            "choose another folder with --output, or remove this one",
        )


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
