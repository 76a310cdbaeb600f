"""What every stage sets up alike: tokenizer, formatting, stop tokens, and the record of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.data.formatting import Formatter, stop_ids
from rlhfctl.errors import RecipeError
from rlhfctl.models import adapters
from rlhfctl.models.provenance import Provenance, check_fits
from rlhfctl.models.roles import Roles, load_roles
from rlhfctl.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.models.role_models import CriticInit
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.run.monitor import Monitor


@dataclass(frozen=True)
class StageContext:
    """Tokenizer and formatting of a stage.

    Attributes:
        recipe: The whole recipe.
        tokenizer: With a pad token of its own.
        formatter: Rows to ids, the same in every stage.
        stop_token_ids: What ends a response.
    """

    recipe: Recipe
    tokenizer: Any
    formatter: Formatter
    stop_token_ids: tuple[int, ...]

    def provenance(self, stage: str, model: Any) -> Provenance:
        """Describe the base and tokenizer that a checkpoint of `stage` is made on."""
        return Provenance.of(
            stage, self.recipe.model.name_or_path, model, self.tokenizer, list(self.stop_token_ids)
        )

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer beside a checkpoint, so that others load both from one folder."""
        self.tokenizer.save_pretrained(str(folder))


def open_stage_context(recipe: Recipe) -> StageContext:
    """Load the tokenizer and find what ends a response.

    Raises:
        RecipeError: `generation.stop_tokens` names a token that the vocabulary lacks, or the pad ends
            responses too.
    """
    tokenizer = load_tokenizer(recipe.model)
    formatter = Formatter(tokenizer)
    vocabulary = tokenizer.get_vocab()
    unknown = [token for token in recipe.generation.stop_tokens if token not in vocabulary]
    if unknown:
        raise RecipeError(
            f"{', '.join(map(repr, unknown))} are not tokens of {recipe.model.name_or_path}",
            "generation.stop_tokens",
            "Each must be a single token of the vocabulary.",
        )
    stops = stop_ids(formatter) | {vocabulary[token] for token in recipe.generation.stop_tokens}
    if tokenizer.pad_token_id in stops:
        raise RecipeError(
            f"{tokenizer.pad_token!r} is the pad token and ends responses too: a reward model, whose "
            "score stands at the last token that is no pad, would be read one token early",
            f"the tokenizer of {recipe.model.name_or_path}",
            "Set another pad_token in a local copy's tokenizer_config.json, or take it out of "
            "generation.stop_tokens.",
        )
    return StageContext(recipe, tokenizer, formatter, tuple(sorted(stops)))


def report_dropped_rows(monitor: Monitor, kind: str, reports: Sequence[RowCounts]) -> None:
    """Say how many rows of a kind were left out, and why, if any were."""
    for report in reports:
        if report.dropped:
            monitor.warn(f"{kind}: {report.summary()}")


def open_roles(
    context: StageContext,
    inputs: Mapping[str, Path],
    more_rms: Sequence[Path] = (),
    critic: CriticInit | None = None,
    *,
    shard: bool = False,
    gradient_checkpointing: bool = False,
) -> Roles:
    """Load the roles from their checkpoints, each checked against this recipe.

    Args:
        context: Tokenizer and recipe.
        inputs: `sft`; `rm` and `ppo` where they exist.
        more_rms: Reward models beside `rm`.
        critic: What the critic starts as; None: there is none.
        shard: Shard the base over the processes.
        gradient_checkpointing: Recompute activations in training passes, to save memory.

    Raises:
        CheckpointError: One of them is of another base, rank or tokenizer.
    """
    recipe = context.recipe
    rms = [*([inputs["rm"]] if "rm" in inputs else []), *more_rms]
    policy = inputs.get("ppo")
    folders = [inputs["sft"], *rms, *([policy] if policy else [])]
    if recipe.lora is not None:
        for folder in folders:
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
    """Write what a supervised stage trained, with its tokenizer and the record of its base.

    Args:
        context: Tokenizer and recipe.
        model: A PeftModel, or a whole model where `lora` is null.
        output: The stage's folder.
        stage: sft or rm.
        task_type: CAUSAL_LM or SEQ_CLS.
    """
    base = model
    if context.recipe.lora is None:
        model.save_pretrained(output)
    else:
        from peft import get_peft_model_state_dict

        base = model.get_base_model()
        adapters.save_adapter(
            get_peft_model_state_dict(model, save_embedding_layers=False),
            model.peft_config["default"],
            output,
            str(base.config.name_or_path),
            task_type,
        )
    context.save_tokenizer(output)
    context.provenance(stage, base).save(output)
