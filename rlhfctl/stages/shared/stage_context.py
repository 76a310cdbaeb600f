"""Setup shared by all stages: tokenizer, formatting, stop tokens and provenance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatter import Formatter, stop_ids
from rlhfctl.models import adapters, new_tokens
from rlhfctl.models.device import check_device, device_notes, flush_denormals
from rlhfctl.models.padding import Padding, choose_padding
from rlhfctl.models.provenance import Provenance, check_fits, check_tokens
from rlhfctl.models.roles import Roles, load_roles
from rlhfctl.models.scan import scan_folder
from rlhfctl.models.tokenizer import read_tokenizer
from rlhfctl.stages.shared.averaged_rm import is_average

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.data.forms import Kind
    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.models.role_models import CriticInit
    from rlhfctl.recipe.schema import DatasetSection, Recipe
    from rlhfctl.run.monitor import Monitor


@dataclass(frozen=True)
class StageContext:
    """Tokenizer and formatting of a stage.

    Attributes:
        recipe: The whole recipe.
        tokenizer: Tokenizer with a pad token that is no stop token.
        formatter: Formats rows as token ids, identically in every stage, and decodes ids.
        stop_token_ids: Tokens that end a response, sorted.
        padding: Pad tokens in training and in exported tokenizers.
    """

    recipe: Recipe
    tokenizer: Any
    formatter: Formatter
    stop_token_ids: tuple[int, ...]
    padding: Padding

    def provenance(self, stage: str, model: Any) -> Provenance:
        """Return the base and tokenizer of a checkpoint of `stage`."""
        return Provenance.of(
            stage,
            self.recipe.model.name_or_path,
            model,
            self.tokenizer,
            list(self.stop_token_ids),
            self.recipe.model.chat_template_kwargs,
        )

    def formatter_for(self, kind: Kind) -> Formatter:
        """Return the formatter of a data set: `formatter` with its rule for control tokens."""
        section: DatasetSection = getattr(self.recipe.data, kind)
        return replace(self.formatter, parse_special=section.special_tokens == "parse")

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer to a checkpoint's folder, so that both load from it."""
        self.tokenizer.pad_token_id = self.padding.exported_id
        try:
            self.tokenizer.save_pretrained(str(folder))
        finally:
            self.tokenizer.pad_token_id = self.padding.token_id


def open_stage_context(recipe: Recipe, monitor: Monitor | None = None) -> StageContext:
    """Check the device, load the tokenizer and determine the stop tokens and the pad token.

    Args:
        recipe: Recipe of a stage.
        monitor: Told what is unexpected about device and precision.

    Raises:
        EnvironmentFault: The machine has a GPU of a kind that rlhfctl does not use.
        RecipeError: A token of `generation.stop_tokens` is not in the vocabulary.
    """
    check_device(recipe.model)
    flush_denormals()
    if monitor is not None:
        for note in device_notes(recipe.model):
            monitor.warn(note)
    tokenizer = read_tokenizer(recipe.model)
    formatter = Formatter(tokenizer, recipe.model.chat_template_kwargs)
    stops = stop_ids(formatter, recipe.generation.stop_tokens)
    padding = choose_padding(tokenizer, stops)
    tokenizer.pad_token_id = padding.token_id
    return StageContext(recipe, tokenizer, formatter, tuple(sorted(stops)), padding)


def report_rows(
    monitor: Monitor, kind: str, source: RowCounts, encoded: Sequence[RowCounts] = ()
) -> RowCounts:
    """Warn of rows that are not used, and return the counts of both for the manifest.

    Args:
        monitor: Receives one warning per report with such rows.
        kind: Kind of data.
        source: Counts of the source's rows.
        encoded: Counts of the rows that were encoded; here rows can be too long.

    Raises:
        DataError: More rows cannot be used than the recipe allows.
    """
    for line in source.source_lines():
        monitor.note(f"{kind}: {line}")
    for note in source.notes:
        monitor.note(f"{kind}: {note}")
    if source.left_out:
        monitor.warn(f"{kind}: {source.left_out_summary()}")
    if source.dropped:
        monitor.warn(f"{kind}: {source.summary()}")
    total = replace(source, dropped=dict(source.dropped))
    for report in encoded:
        add_encoded(monitor, kind, total, report)
    return total


def add_encoded(monitor: Monitor, kind: str, total: RowCounts, report: RowCounts) -> None:
    """Warn of rows that were dropped by encoding, and add them to the counts for the manifest.

    Raises:
        DataError: More rows cannot be used than the recipe allows.
    """
    for note in report.notes:
        monitor.warn(f"{kind}: {note}")
    if report.dropped:
        monitor.warn(f"{kind}: {report.summary()}")
        total.add_encoding(report)
        total.check(total.limit)


def open_roles(
    context: StageContext,
    inputs: Mapping[str, Path],
    more_rms: Sequence[Path] = (),
    critic: CriticInit | None = None,
    *,
    shard: bool = False,
    gradient_checkpointing: bool = False,
) -> Roles:
    """Load the roles from their checkpoints, and check each against the recipe.

    Args:
        context: Tokenizer and recipe.
        inputs: Checkpoints: `sft`, and `rm` and `ppo` if available.
        more_rms: Reward models besides `rm`.
        critic: Initialisation of the critic; None: no critic.
        shard: Shard the base over the processes.
        gradient_checkpointing: Recompute activations in training passes, to save memory.

    Raises:
        CheckpointError: A checkpoint has another base, rank or tokenizer.
        UnsafeError: A checkpoint would run code, or has links out of its folder.
    """
    recipe = context.recipe
    rms = [*([inputs["rm"]] if "rm" in inputs else []), *more_rms]
    policy = inputs.get("ppo")
    folders = [inputs["sft"], *rms, *([policy] if policy else [])]
    for folder in folders:
        scan_folder(folder, remote_code=recipe.model.trust_remote_code)
        check_tokens(
            folder,
            context.tokenizer,
            context.stop_token_ids,
            context.recipe.model.chat_template_kwargs,
        )
        if recipe.lora is not None and not is_average(folder):
            adapters.check_rank(folder, recipe.lora)
    roles = load_roles(
        recipe,
        context.tokenizer,
        context.stop_token_ids,
        inputs["sft"],
        rms,
        policy,
        critic,
        shard=shard,
        gradient_checkpointing=gradient_checkpointing,
    )
    current = context.provenance("ppo", roles.models.language_model("reference"))
    if recipe.lora is not None:
        for folder in folders:
            check_fits(folder, current)
    return roles


def save_trained(
    context: StageContext, model: Any, output: Path, stage: str, task_type: str
) -> None:
    """Write the model of a supervised stage with its tokenizer and provenance.

    Args:
        context: Tokenizer and recipe.
        model: PeftModel, or whole model if `lora` is null.
        output: Folder of the stage.
        stage: sft, rm or dpo.
        task_type: CAUSAL_LM or SEQ_CLS.
    """
    base = model
    if context.recipe.lora is None:
        set_exported_pad(context.padding, model, task_type)
        model.save_pretrained(output)
    else:
        from peft import get_peft_model_state_dict

        base = model.get_base_model()
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        config = model.peft_config["default"]
        if config.trainable_token_indices is None:
            # Reward model and DPO take new tokens' rows from SFT; SFT's own adapter has them.
            ids = new_tokens.new_token_ids(context.recipe.model)
            head = task_type == "CAUSAL_LM"
            weights, config = new_tokens.with_rows(weights, config, base, ids, head=head)
        adapters.save_adapter(weights, config, output, str(base.config.name_or_path), task_type)
    context.save_tokenizer(output)
    context.provenance(stage, base).save(output)


def set_exported_pad(padding: Padding, model: Any, task_type: str) -> None:
    """Write the pad token of a whole model's config as the exported tokenizer has it.

    A classifier whose pad is EOS would read its score one token early, in silence. Without a pad it
    reads at the last token, and refuses batches until it is given one.
    """
    if not padding.is_shared:
        return
    pad = None if task_type == "SEQ_CLS" else padding.exported_id
    model.config.get_text_config().pad_token_id = pad
    if task_type == "CAUSAL_LM":
        model.generation_config.pad_token_id = pad
