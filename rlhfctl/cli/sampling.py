"""The `sample` command on a loaded run, and what `chat` shares with it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.cli.finished_runs import library_output, open_run
from rlhfctl.console import safe
from rlhfctl.errors import DataError, UsageError
from rlhfctl.recipe.permissions import permit
from rlhfctl.sampling.settings import SamplingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.console import Terminal
    from rlhfctl.pipeline.finished import FinishedRun
    from rlhfctl.sampling.prompts import PromptForm
    from rlhfctl.sampling.settings import Response

_BASE = "base"
TITLES = {_BASE: "base", "sft": "SFT", "ppo": "PPO", "dpo": "DPO"}
_STDIN = "-"


@dataclass(frozen=True)
class SamplingRequest:
    """Options of `sample` and `chat`.

    Attributes:
        run: Name or folder of the run; None: the newest.
        runs_dir: Directory for runs.
        stages: base, sft, ppo, dpo; empty: those of the command's default.
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
    stages = list(dict.fromkeys(request.stages)) or default_stages(run)
    settings = sampling_settings(request, run, stages)
    permit(remote_code=request.allow_remote_code)
    terminal.note(f"run {run.directory.root}: loading {', '.join(stages)}")
    with library_output(run, "sample"):
        from rlhfctl.sampling.prompts import encoded, resolved_form
        from rlhfctl.sampling.stage_models import StageModels

        models = StageModels(run, stages, best=request.best)
        resolved = resolved_form(form, models.context)
        ids = encoded(texts, resolved, models.context, request.system)
        kind = "conversations" if resolved == "chat" else "plain text"
        terminal.note(f"prompts as {kind}, {described(settings)}")
        responses = {stage: models.respond(stage, ids, settings) for stage in stages}
    if terminal.as_json:
        terminal.write_json(_as_json(run, settings, resolved, texts, responses))
    else:
        _print(terminal, texts, responses)


def default_stages(run: FinishedRun) -> list[str]:
    """Return the finished stages with a language model, in the order of training.

    Raises:
        CheckpointError: There is none.
    """
    policies = ("sft", "ppo") if "ppo" in run.stages else ("sft", "dpo")
    stages = [stage for stage in run.stages if stage in policies]
    if not stages:
        run.record("sft")
    return stages


def sampling_settings(
    request: SamplingRequest, run: FinishedRun, stages: Sequence[str]
) -> SamplingSettings:
    """Return the settings of generation: the request's, else the recipe's.

    Raises:
        UsageError: Both `--greedy` and a temperature are set.
        CheckpointError: A stage is not finished.
    """
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


def described(settings: SamplingSettings) -> str:
    """Return the settings in words."""
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
            terminal.result(columns(row))
        else:
            for stage, response in row.items():
                terminal.result(f"[{TITLES[stage]}] {shown_text(response)}")


def columns(row: dict[str, Response]) -> Table:
    """Return the responses side by side, under the titles of their stages."""
    table = Table(expand=True, show_edge=False, pad_edge=False)
    for stage in row:
        table.add_column(TITLES[stage], ratio=1, overflow="fold")
    table.add_row(*(safe(shown_text(response)) for response in row.values()))
    return table


def shown_text(response: Response) -> str:
    """Return a response; one that did not end is marked."""
    return response.text if response.ended else f"{response.text} […]"
