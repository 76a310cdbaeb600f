"""The `sample` and `chat` commands on a loaded run."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.cli.finished_runs import library_output, open_run
from rlhfctl.console import safe
from rlhfctl.errors import DataError, UsageError
from rlhfctl.recipe.permissions import permit
from rlhfctl.run.text import visible
from rlhfctl.sampling.settings import SamplingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.pipeline.finished import FinishedRun
    from rlhfctl.sampling.conversation import Conversation
    from rlhfctl.sampling.prompts import PromptForm
    from rlhfctl.sampling.settings import Response

_BASE = "base"
_TITLES = {_BASE: "base", "sft": "SFT", "ppo": "PPO"}
_STDIN = "-"
RESET, EXIT = "/reset", "/exit"


@dataclass(frozen=True)
class SamplingRequest:
    """Options of `sample` and `chat`.

    Attributes:
        run: Name or folder of the run; None: the newest.
        runs_dir: Directory for runs.
        stages: base, sft, ppo; empty: those of the command's default.
        temperature: None: the recipe's.
        greedy: Take the most probable token at each step.
        max_new_tokens: None: the recipe's.
        seed: None: the recipe's.
        system: System turn.
        best: PPO's best policy.
        allow_remote_code: Run the code of a model with `trust_remote_code`.
    """

    run: str | None
    runs_dir: Path
    stages: tuple[str, ...] = ()
    temperature: float | None = None
    greedy: bool = False
    max_new_tokens: int | None = None
    seed: int | None = None
    system: str | None = None
    best: bool = False
    allow_remote_code: bool = False


def sample(
    request: SamplingRequest,
    prompts: Sequence[str],
    prompts_file: str | None,
    form: PromptForm,
    terminal: Terminal,
) -> None:
    """Print each stage's response to each prompt.

    Args:
        request: Run, stages and settings.
        prompts: Prompts of the command line.
        prompts_file: Text file with one prompt per line; ``-`` for stdin.
        form: Form of the prompts.
        terminal: Output.

    Raises:
        UsageError: There is no prompt or no run.
        CheckpointError: A stage is not finished.
    """
    texts = [*prompts, *_from_file(prompts_file)]
    if not texts and prompts_file is None and not sys.stdin.isatty():
        texts = _from_file(_STDIN)
    if not texts:
        raise UsageError(
            "there is no prompt", hint='pass --prompt "...", or one per line with --file FILE'
        )
    run = open_run(request.run, request.runs_dir)
    stages = list(dict.fromkeys(request.stages)) or _default_stages(run)
    settings = _settings(request, run, stages)
    permit(remote_code=request.allow_remote_code)
    terminal.note(f"run {run.directory.root}: loading {', '.join(stages)}")
    with library_output(run, "sample"):
        from rlhfctl.sampling.prompts import encoded, resolved_form
        from rlhfctl.sampling.stage_models import StageModels

        models = StageModels(run, stages, best=request.best)
        resolved = resolved_form(form, models.context)
        ids = encoded(texts, resolved, models.context, request.system)
        kind = "conversations" if resolved == "chat" else "plain text"
        terminal.note(f"prompts as {kind}, {_described(settings)}")
        responses = {stage: models.respond(stage, ids, settings) for stage in stages}
    if terminal.as_json:
        terminal.write_json(_as_json(run, settings, resolved, texts, responses))
    else:
        _print(terminal, texts, responses)


def chat(request: SamplingRequest, terminal: Terminal) -> None:
    """Answer each line of stdin, until its end or `/exit`; `/reset` starts anew.

    Raises:
        UsageError: There is no run, or its tokenizer has no chat template.
        CheckpointError: The stage is not finished.
    """
    run = open_run(request.run, request.runs_dir)
    stage = request.stages[0] if request.stages else _default_stages(run)[-1]
    settings = _settings(request, run, [stage])
    permit(remote_code=request.allow_remote_code)
    terminal.note(f"run {run.directory.root}: loading {stage}")
    with library_output(run, "chat"):
        from rlhfctl.sampling.conversation import Conversation
        from rlhfctl.sampling.prompts import resolved_form
        from rlhfctl.sampling.stage_models import StageModels

        models = StageModels(run, [stage], best=request.best)
        conversation = Conversation(models, stage, settings, request.system)
        form = resolved_form("auto", models.context)
    if form == "text":
        terminal.warn("the run was trained on plain text; chat uses the tokenizer's chat template")
    terminal.note(f"{_described(settings)}; {RESET} starts anew, {EXIT} or Ctrl-D ends")
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not terminal.as_json
    while (line := _next_line(interactive)) is not None:
        if line.strip() == EXIT:
            break
        if line.strip() == RESET:
            conversation.reset()
        elif line.strip():
            _turn(conversation, line, terminal, interactive=interactive)


def _turn(conversation: Conversation, line: str, terminal: Terminal, *, interactive: bool) -> None:
    """Answer one line; interactively an error ends the turn, else the command."""
    try:
        response = conversation.say(line)
    except (UsageError, DataError) as error:
        if not interactive:
            raise
        terminal.error(str(error))
        return
    if terminal.as_json:
        terminal.write_json({"prompt": line, **asdict(response)})
        return
    if interactive:
        terminal.result(safe(f"{_TITLES[conversation.stage]}> ", "bold") + safe(response.text))
    else:
        sys.stdout.write(visible(response.text).replace("\n", "\\n") + "\n")
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


def _default_stages(run: FinishedRun) -> list[str]:
    """Return the finished stages with a language model.

    Raises:
        CheckpointError: There is none.
    """
    stages = [stage for stage in run.stages if stage != "rm"]
    if not stages:
        run.record("sft")
    return stages


def _settings(
    request: SamplingRequest, run: FinishedRun, stages: Sequence[str]
) -> SamplingSettings:
    for stage in stages:
        if stage != _BASE:
            run.record(stage)
    if request.greedy and request.temperature is not None:
        raise UsageError("--greedy and --temperature exclude one another")

    generation = run.recipe.generation
    temperature = request.temperature
    if temperature is None:
        temperature = 0.0 if request.greedy else generation.temperature
    return SamplingSettings(
        request.max_new_tokens or generation.max_new_tokens,
        temperature,
        run.recipe.seed if request.seed is None else request.seed,
    )


def _described(settings: SamplingSettings) -> str:
    how = (
        f"temperature {settings.temperature:g}, seed {settings.seed}"
        if settings.temperature
        else "greedy"
    )
    return f"{how}, at most {settings.max_new_tokens} tokens"


def _from_file(name: str | None) -> list[str]:
    """Return the lines of a file that are not blank.

    Raises:
        DataError: The file cannot be read.
    """
    if name is None:
        return []
    try:
        if name == _STDIN:
            lines = sys.stdin.read().splitlines()
        else:
            from pathlib import Path

            lines = Path(name).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the prompts cannot be read: {getattr(error, 'strerror', None) or error}",
            name,
            "pass a UTF-8 text file with one prompt per line",
        ) from error
    return [line for line in lines if line.strip()]


def _as_json(
    run: FinishedRun,
    settings: SamplingSettings,
    form: str,
    prompts: Sequence[str],
    responses: dict[str, list[Response]],
) -> dict[str, object]:
    return {
        "ok": True,
        "run": str(run.directory.root),
        "settings": {**asdict(settings), "form": form},
        "samples": [
            {
                "prompt": prompt,
                "responses": {stage: asdict(rows[number]) for stage, rows in responses.items()},
            }
            for number, prompt in enumerate(prompts)
        ],
    }


def _print(
    terminal: Terminal, prompts: Sequence[str], responses: dict[str, list[Response]]
) -> None:
    """Print stages side by side on a terminal, one below the other in a pipe."""
    side_by_side = sys.stdout.isatty() and len(responses) > 1
    for number, prompt in enumerate(prompts):
        terminal.result(safe("" if number == 0 else "\n") + safe(f"prompt: {prompt}", "bold"))
        row = {stage: rows[number] for stage, rows in responses.items()}
        if side_by_side:
            terminal.result(_columns(row))
        else:
            for stage, response in row.items():
                terminal.result(f"[{_TITLES[stage]}] {_text(response)}")


def _columns(row: dict[str, Response]) -> Table:
    table = Table(expand=True, show_edge=False, pad_edge=False)
    for stage in row:
        table.add_column(_TITLES[stage], ratio=1, overflow="fold")
    table.add_row(*(safe(_text(response)) for response in row.values()))
    return table


def _text(response: Response) -> str:
    return response.text if response.ended else f"{response.text} […]"
