"""Commands that serve an export, and the name of its base."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rlhfctl.models import adapters
from rlhfctl.models.hub import model_source
from rlhfctl.stage_table import REWARD_MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.export.options import ExportOptions, ExportResult
    from rlhfctl.recipe.schema import ModelSection
    from rlhfctl.stages.shared.stage_context import StageContext

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank."""


def base_name(section: ModelSection, options: ExportOptions) -> str:
    """Return the Hub id or absolute folder of a base, as other programs load it.

    Args:
        section: The base.
        options: The user may have stated the Hub id of a local base.
    """
    return options.card.base_model or model_source(section)


def commands(
    result: ExportResult, context: StageContext, options: ExportOptions, output: Path
) -> dict[str, str]:
    """Return the command per program that serves an export.

    Args:
        result: The export, in its staging folder.
        context: Recipe of the stage.
        options: Form of the export.
        output: Final folder.
    """
    serve: dict[str, str] = {}
    if not adapters.is_adapter(result.folder):
        extra = ["--runner", "pooling"] if options.stage == REWARD_MODEL.name else []
        serve["vLLM"] = shlex.join(["vllm", "serve", str(output), *extra])
    elif options.stage != REWARD_MODEL.name and not context.recipe.model.resize_embeddings:
        serve["vLLM"] = _with_adapter(result.folder, context, options, output)
    file = next((name for name in result.files if name.endswith(".gguf")), None)
    if file is not None:
        serve["llama.cpp"] = shlex.join(["llama-server", "--jinja", "-m", str(output / file)])
    if options.ollama:
        name = f"{context.recipe.name}-{options.stage}"
        serve["Ollama"] = (
            f"{shlex.join(['ollama', 'create', name, '-f', str(output / 'Modelfile')])} && "
            f"{shlex.join(['ollama', 'run', name])}"
        )
    return serve


def _with_adapter(folder: Path, context: StageContext, options: ExportOptions, output: Path) -> str:
    rank = int(adapters.read_config(folder).r)
    section = context.recipe.model
    arguments = ["vllm", "serve", base_name(section, options)]
    if section.revision is not None:
        arguments += ["--revision", section.revision]
    arguments += ["--enable-lora", "--max-lora-rank", str(next(r for r in _RANKS if r >= rank))]
    arguments += ["--lora-modules", f"{options.stage}={output}"]
    if context.tokenizer.chat_template is not None:
        arguments += ["--chat-template", str(output / "chat_template.jinja")]
    return shlex.join(arguments)
