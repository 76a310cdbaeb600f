"""Ollama's Modelfile, with the run's chat template as a Go template and its stop tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.data.rendering import ChatTemplate
from rlhfctl.errors import UsageError
from rlhfctl.export.chat_pieces import chat_pieces

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.export.chat_pieces import ChatPieces
    from rlhfctl.stages.shared.stage_context import StageContext

FILE = "Modelfile"


def write_modelfile(folder: Path, weights: Path, context: StageContext) -> None:
    """Write a Modelfile beside a GGUF file.

    Args:
        folder: The export.
        weights: GGUF file in it.
        context: Tokenizer and settings of the run.

    Raises:
        UsageError: The chat template cannot be written in Go.
    """
    (folder / FILE).write_text(modelfile(weights.name, context), encoding="utf-8")


def modelfile(weights: str, context: StageContext) -> str:
    """Return the text of a Modelfile; raises as `write_modelfile`.

    Args:
        weights: Name of the GGUF file beside it.
        context: Tokenizer and settings of the run.
    """
    tokenizer, settings = context.tokenizer, context.recipe.generation
    stops = [tokenizer.convert_ids_to_tokens(index) for index in context.stop_token_ids]
    lines = [
        f"FROM ./{weights}",
        f'TEMPLATE """{go_template(context)}"""',
        *(f"PARAMETER stop {_quoted(stop)}" for stop in stops),
        f"PARAMETER temperature {settings.temperature:g}",
        "PARAMETER top_k 0",
        "PARAMETER top_p 1",
        "PARAMETER min_p 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {settings.max_new_tokens}",
    ]
    return "\n".join(lines) + "\n"


def go_template(context: StageContext) -> str:
    """Return the chat template in Go; without a chat template, the prompt as it is.

    Raises:
        UsageError: It has conditions that Go's template cannot express.
    """
    if context.tokenizer.chat_template is None:
        return "{{ .Prompt }}"
    pieces = chat_pieces(ChatTemplate(context.tokenizer, context.recipe.model.chat_template_kwargs))
    if pieces is None:
        raise UsageError(
            "the chat template does more than write fixed texts around each turn, so it cannot be "
            "written as a Go template for Ollama",
            "model.chat_template",
            "leave out --ollama and serve the GGUF file with llama.cpp: llama-server --jinja",
        )
    return _go(pieces, _added_start(context))


def _go(pieces: ChatPieces, added: str) -> str:
    """Return pieces as a Go template.

    Args:
        pieces: Texts around turns.
        added: Text that llama.cpp puts before every prompt: the BOS, or none.
    """
    branches = []
    for number, (role, (before, after)) in enumerate(sorted(pieces.around.items())):
        if role == "system":
            before = before.removeprefix(added)  # noqa: PLW2901
        word = "if" if number == 0 else "else if"
        branches.append(
            f'{{{{- {word} eq .Role "{role}" }}}}{_text(before)}{{{{ .Content }}}}{_text(after)}'
        )
    start = _text(pieces.default_system.removeprefix(added))
    default = (
        f'{{{{- if .Messages }}}}{{{{ if ne (index .Messages 0).Role "system" }}}}{start}'
        "{{ end }}{{ end }}\n"
        if start
        else ""
    )
    return (
        f"{default}{{{{- range .Messages }}}}\n"
        + "\n".join(branches)
        + f"\n{{{{- end }}}}\n{{{{- end }}}}{_text(pieces.ask)}"
    )


def _added_start(context: StageContext) -> str:
    """Return the BOS if the tokenizer puts it before every text, as llama.cpp then does too."""
    tokenizer = context.tokenizer
    if tokenizer.bos_token_id is None:
        return ""
    adds = list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if adds else ""


def _text(text: str) -> str:
    """Return an action of Go's template that writes a text; nothing for none."""
    return f"{{{{ {_go_string(text)} }}}}" if text else ""


def _go_string(text: str) -> str:
    """Return a text as a string of Go without quotes inside, which would end the Modelfile's."""
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", '"': "\\u0022"}
    return '"' + "".join(escapes.get(character, character) for character in text) + '"'


def _quoted(stop: str) -> str:
    """Return a stop token as a value of a Modelfile's parameter."""
    escaped = stop.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
