"""The `chat` command: conversations with the models of a run, stages side by side."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from rlhfctl.cli.finished_runs import library_output, open_run
from rlhfctl.cli.sampling import (
    TITLES,
    SamplingRequest,
    columns,
    default_stages,
    described,
    sampling_settings,
)
from rlhfctl.console import safe
from rlhfctl.errors import DataError, UsageError
from rlhfctl.recipe.permissions import permit
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.console import Terminal
    from rlhfctl.sampling.conversation import Conversation
    from rlhfctl.sampling.settings import Response

RESET, EXIT = "/reset", "/exit"


def chat(request: SamplingRequest, terminal: Terminal) -> None:
    """Answer each line of stdin, until its end or `/exit`; `/reset` starts anew.

    Each stage continues its own answers.

    Raises:
        UsageError: There is no run, or its tokenizer has no chat template.
        CheckpointError: A stage is not finished.
    """
    run = open_run(request.run, request.runs_dir)
    stages = list(dict.fromkeys(request.stages)) or default_stages(run)[-1:]
    settings = sampling_settings(request, run, stages)
    permit(remote_code=request.allow_remote_code)
    terminal.note(f"run {run.directory.root}: loading {', '.join(stages)}")
    with library_output(run, "chat"):
        from rlhfctl.sampling.conversation import Conversation
        from rlhfctl.sampling.prompts import resolved_form
        from rlhfctl.sampling.stage_models import StageModels

        models = StageModels(run, stages, best=request.best)
        conversations = [Conversation(models, stage, settings, request.system) for stage in stages]
        form = resolved_form("auto", models.context)
    if form == "text":
        terminal.warn("the run was trained on plain text; chat uses the tokenizer's chat template")
    terminal.note(f"{described(settings)}; {RESET} starts anew, {EXIT} or Ctrl-D ends")
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not terminal.as_json
    while (line := _next_line(interactive)) is not None:
        if line.strip() == EXIT:
            break
        if line.strip() == RESET:
            for conversation in conversations:
                conversation.reset()
        elif line.strip():
            _turn(conversations, line, terminal, interactive=interactive)


def _turn(
    conversations: Sequence[Conversation], line: str, terminal: Terminal, *, interactive: bool
) -> None:
    """Answer one line; interactively an error ends the turn, else the command."""
    responses: dict[str, Response] = {}
    for conversation in conversations:
        try:
            responses[conversation.stage] = conversation.say(line)
        except (UsageError, DataError) as error:
            if not interactive:
                raise
            terminal.error(str(error))
    if terminal.as_json:
        for stage, response in responses.items():
            terminal.write_json({"prompt": line, "stage": stage, **asdict(response)})
    elif not interactive:
        for stage, response in responses.items():
            title = f"[{TITLES[stage]}] " if len(conversations) > 1 else ""
            sys.stdout.write(title + visible(response.text).replace("\n", "\\n") + "\n")
    elif len(conversations) > 1 and responses:
        terminal.result(columns(responses))
    else:
        for stage, response in responses.items():
            terminal.result(safe(f"{TITLES[stage]}> ", "bold") + safe(response.text))
    sys.stdout.flush()


def _next_line(interactive: bool) -> str | None:
    """Return the next line of stdin without its line break; None at its end."""
    if interactive:
        try:
            return input("you> ")
        except EOFError:
            sys.stdout.write("\n")
            return None
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None
