"""Model card of an export: what it is, how to load it, how it was evaluated, where it is weak."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import rlhfctl
from rlhfctl.data.files import is_local
from rlhfctl.export.card_metrics import measured
from rlhfctl.export.licence import base_licence
from rlhfctl.models import adapters
from rlhfctl.report.sources import read_run
from rlhfctl.report.verdict import verdict_of
from rlhfctl.stage_table import REWARD_MODEL, SFT, stage_named
from rlhfctl.stages.shared.loading_code import Loading, loading_code
from rlhfctl.stages.shared.model_card import padding_paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import ModelCardData

    from rlhfctl.export.card_metrics import Measured
    from rlhfctl.export.options import ExportOptions, ExportResult
    from rlhfctl.pipeline.finished import FinishedRun
    from rlhfctl.recipe.data import DatasetSection
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.stages.shared.stage_context import StageContext

CARD = "README.md"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PLACEHOLDER = "."


def write_card(
    run: FinishedRun, options: ExportOptions, context: StageContext, result: ExportResult
) -> None:
    """Write the card of an export.

    Args:
        run: The run.
        options: Form of the export, and what the user states.
        context: Recipe and tokenizer of the stage.
        result: The export.
    """
    facts = read_run(run.directory.root)
    metrics = measured(facts, options.stage)
    data = _metadata(options, context, result, metrics)
    text = "\n\n".join(_paragraphs(run, facts, options, context, result, metrics))
    card = f"---\n{data.to_yaml()}\n---\n\n{text}\n"
    (result.folder / CARD).write_text(card, encoding="utf-8")


def for_repository(card: str, repository: str) -> str:
    """Return a card whose code loads from a repository of the Hub rather than from its folder."""
    return card.replace(f'folder = "{_PLACEHOLDER}"', f'folder = "{repository}"', 1)


def _metadata(
    options: ExportOptions,
    context: StageContext,
    result: ExportResult,
    metrics: list[Measured],
) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    recipe, adapter = context.recipe, adapters.is_adapter(result.folder)
    scores = options.stage == REWARD_MODEL.name
    licence = options.card.licence or base_licence(recipe.model)
    return ModelCardData(
        base_model=options.card.base_model or _hub_id(recipe.model.name_or_path),
        datasets=_datasets(options.stage, context) or None,
        license=licence,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-classification" if scores else "text-generation",
        tags=["rlhfctl", options.stage, *(["lora"] if adapter else [])],
        model_name=f"{recipe.name}-{options.stage}",
        eval_results=[
            EvalResult(
                task_type="text-classification" if scores else "text-generation",
                dataset_type="held-out",
                dataset_name=metric.data,
                metric_type=metric.key,
                metric_value=round(metric.value, 6),
                metric_name=metric.title
                + (f" (95 % CI {metric.interval})" if metric.interval else ""),
            )
            for metric in metrics
        ]
        or None,
    )


def _paragraphs(
    run: FinishedRun,
    facts: RunFacts,
    options: ExportOptions,
    context: StageContext,
    result: ExportResult,
    metrics: list[Measured],
) -> Iterator[str]:
    recipe, stage = context.recipe, stage_named(options.stage)
    scores = options.stage == REWARD_MODEL.name
    base = _public_name(options, recipe.model.name_or_path)
    yield f"# {stage.title} of {base}"
    yield (
        f"{result.form.capitalize()} in {result.dtype}, made by rlhfctl {rlhfctl.__version__} "
        f"(run {recipe.name}, seed {recipe.seed}) from the base `{base}`"
        f"{f' at revision `{recipe.model.revision}`' if recipe.model.revision else ''}."
    )
    if options.card.licence is None and base_licence(recipe.model) is None:
        yield "Licence: not stated. The base's licence applies to this model as well."
    yield "## Use"
    settings = recipe.generation
    form = Loading(
        scores,
        adapters.is_adapter(result.folder),
        _PLACEHOLDER,
        settings.max_new_tokens,
        settings.temperature,
        options.card.base_model,
    )
    yield f"In this folder:\n\n```python\n{loading_code(context, form)}\n```"
    yield padding_paragraph(context, scores=scores)
    yield from (_sentence(note) for note in result.notes)
    if metrics:
        yield "## Evaluation"
        yield "\n".join(_table(metrics))
    verdict = verdict_of(facts)
    if options.stage != SFT.name and facts.evaluation is not None:
        yield f"Verdict of the run: {verdict.sentence}"
    yield "## Known weaknesses"
    weaknesses = [*verdict.cautions] if options.stage != SFT.name else []
    weaknesses.append(
        "It was evaluated on the held-out prompts of its own data only; nothing is known of others."
        if metrics
        else "It was not evaluated."
    )
    # A card may be published, so it names no folder of this machine.
    root = str(run.directory.root)
    yield "\n".join(f"- {_sentence(text.replace(root, recipe.name))}" for text in weaknesses)
    yield "## Training data"
    yield "\n".join(_data_lines(options.stage, context, facts))
    yield "## Check of this export"
    yield _check(result)


def _check(result: ExportResult) -> str:
    compared = result.comparison
    return (
        f"Loaded again, its outputs on {compared.prompts} prompts differ from the checkpoint's by at "
        f"most {compared.largest:.2g} (bound: {compared.bound:.2g})."
    )


def _table(metrics: list[Measured]) -> Iterator[str]:
    yield "| metric | value | 95 % CI | data |"
    yield "|---|---|---|---|"
    for metric in metrics:
        yield f"| {metric.title} | {metric.text} | {metric.interval or '—'} | {metric.data} |"


def _data_lines(stage: str, context: StageContext, facts: RunFacts) -> Iterator[str]:
    for kind, recorded_by in _kinds(stage).items():
        section: DatasetSection = getattr(context.recipe.data, kind)
        record = facts.records.get(recorded_by)
        for part in section.parts:
            key = (
                f"data.{kind}.sources: {part.source}" if section.sources else f"data.{kind}.source"
            )
            artifact = record.inputs.get(key) if record is not None else None
            local = is_local(part.source)
            name = f"`{Path(part.source).name}`" if local else f"`{part.source}`"
            pinned = f" at revision `{part.revision}`" if part.revision else ""
            weight = getattr(part, "weight", None)
            share = f", weight {weight:g}" if weight is not None else ""
            digest = f", SHA-256 `{artifact.sha256}`" if artifact is not None else ""
            yield f"- {kind}: {name}{pinned}{share}{digest}"


def _kinds(stage: str) -> dict[str, str]:
    """Return the kinds of data of a stage and of those before it, each with one that reads it."""
    row = stage_named(stage)
    stages = [*(stage_named(name) for name in row.accepts), row]
    return {kind: one.name for one in stages for kind in one.data}


def _datasets(stage: str, context: StageContext) -> list[str]:
    """Return the Hub ids of the data sets that a model was trained on."""
    sections: list[DatasetSection] = [getattr(context.recipe.data, kind) for kind in _kinds(stage)]
    sources = [part.source for section in sections for part in section.parts]
    ids = [_hub_id(source) for source in sources if not is_local(source)]
    return sorted({name for name in ids if name is not None})


def _public_name(options: ExportOptions, name: str) -> str:
    """Return the Hub id of a base, else its folder's name."""
    return options.card.base_model or _hub_id(name) or Path(name).name


def _hub_id(name: str) -> str | None:
    """Return a name that is a Hub id; None for a folder, a file or the embedded model."""
    local = name == "embedded" or Path(name).expanduser().exists()
    return name if not local and _HUB_ID.fullmatch(name) else None


def _sentence(text: str) -> str:
    """Return a clause as a sentence."""
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"
