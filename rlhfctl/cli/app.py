"""The command line itself: which commands there are, and which recipe keys their options set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import rlhfctl
from rlhfctl.cli.boundary import Boundary
from rlhfctl.cli.data import app as data_app
from rlhfctl.cli.options import (
    EvalSettings,
    GivenKeys,
    KeyOption,
    Settings,
    SweepSettings,
    with_options,
)
from rlhfctl.cli.report_format import Format
from rlhfctl.errors import EXIT_CODE_MEANINGS

if TYPE_CHECKING:
    from collections.abc import Callable

_RATE = "Learning rate."
_EPOCHS = "Passes over the training set."
_SFT = KeyOption("--sft", "", "PATH", "SFT checkpoint to use instead of the run's.", is_path=True)
_RM = KeyOption("--rm", "", "PATH", "Reward model to use instead of the run's.", is_path=True)


def _key(option: KeyOption, key: str) -> KeyOption:
    return KeyOption(option.flag, key, option.metavar, option.help, option.is_path)


_STAGE_OPTIONS: dict[str, tuple[KeyOption, ...]] = {
    "sft": (
        KeyOption("--model", "model.name_or_path", "NAME", "Base model.", is_path=True),
        KeyOption(
            "--dataset", "data.demonstrations.source", "NAME", "Demonstrations.", is_path=True
        ),
        KeyOption("--learning-rate", "sft.learning_rate", "X", _RATE),
        KeyOption("--epochs", "sft.num_train_epochs", "X", _EPOCHS),
    ),
    "train-rm": (
        KeyOption("--dataset", "data.comparisons.source", "NAME", "Comparisons.", is_path=True),
        _key(_SFT, "reward_model.sft"),
        KeyOption("--learning-rate", "reward_model.learning_rate", "X", _RATE),
        KeyOption("--epochs", "reward_model.num_train_epochs", "X", _EPOCHS),
    ),
    "ppo": (
        KeyOption("--beta", "ppo.beta", "X", "Coefficient of the KL penalty."),
        KeyOption("--episodes", "ppo.episodes", "N", "Prompts answered over the whole run."),
        KeyOption("--learning-rate", "ppo.learning_rate", "X", "Learning rate of the policy."),
        _key(_SFT, "ppo.sft"),
        _key(_RM, "ppo.rm"),
    ),
    "eval": (
        KeyOption("--prompts", "evaluation.num_prompts", "N", "Held-out prompts to answer."),
        _key(_SFT, "evaluation.sft"),
        _key(_RM, "evaluation.rm"),
        KeyOption("--ppo", "evaluation.ppo", "PATH", "PPO checkpoint to judge.", is_path=True),
    ),
    "run": (KeyOption("--model", "model.name_or_path", "NAME", "Base model.", is_path=True),),
}
_STAGES: dict[str, tuple[str, ...] | None] = {
    "sft": ("sft",),
    "train-rm": ("rm",),
    "ppo": ("ppo",),
    "eval": ("eval",),
    "run": None,
}
_HELP = {
    "sft": "Fine-tune the base model on demonstrations.",
    "train-rm": "Train the reward model on comparisons.",
    "ppo": "Train the policy against the reward model, with a KL penalty.",
    "eval": "Judge the policy against SFT on held-out prompts; write the report.",
    "run": "All stages in order, skipping those that are up to date; write the report.",
    "sweep": "Run a recipe at many settings: --set KEY=VALUE,VALUE,... makes a grid.",
    "show": "Print a recipe as resolved, each value with where it came from.",
    "validate": "Check a recipe and the files and columns it names.",
}


def _exit_codes() -> str:
    codes = [f"{int(code):>3}  {meaning}" for code, meaning in EXIT_CODE_MEANINGS.items()]
    return "Exit codes\n" + "\n".join(codes)


app = typer.Typer(
    name="rlhfctl",
    cls=Boundary,
    help="RLHF that a single engineer can run and trust: SFT, reward model, PPO, evaluation.",
    epilog=_exit_codes(),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlhfctl {rlhfctl.__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    from rlhfctl.run.log_capture import quiet_environment

    quiet_environment()


def _run(name: str, settings: Settings, keys: GivenKeys) -> None:
    from rlhfctl.cli.run_stages import run_command

    run_command(name, _STAGES[name], settings, keys)


def _show(settings: Settings, keys: GivenKeys) -> None:
    from rlhfctl.cli.inspection import show

    show(settings, keys)


def _validate(settings: Settings, keys: GivenKeys) -> None:
    from rlhfctl.cli.inspection import validate

    validate(settings, keys)


def _sweep(settings: Settings, keys: GivenKeys) -> None:
    from rlhfctl.cli.sweep import sweep

    sweep(cast("SweepSettings", settings))


_COMMANDS: dict[str, Callable[[Settings, GivenKeys], None]] = {
    **{name: partial(_run, name) for name in _STAGES},
    "show": _show,
    "validate": _validate,
}
for _name, _command in _COMMANDS.items():
    _options = _STAGE_OPTIONS.get(_name, ())
    _without = () if _name in _STAGES else ("launch",)
    _kind = EvalSettings if _name == "eval" else Settings
    app.command(_name)(with_options(_command, _options, _HELP[_name], _without, _kind))
app.command("sweep")(with_options(_sweep, (), _HELP["sweep"], ("launch",), SweepSettings))
app.add_typer(data_app, name="data")


@app.command("report", help="Render a run, several runs or a sweep as one page, Markdown or JSON.")
def _report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="Names of runs, or paths of run folders; several are compared. Else the newest run.",
        ),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option("--runs-dir", metavar="DIR", help="Where runs lie.")
    ] = Path("runs"),
    form: Annotated[
        Format, typer.Option("--format", help="Page, Markdown for a comment, or JSON.")
    ] = Format.HTML,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Where to; - for stdout. Else report.html in the run's folder, or "
            "comparison.html beside the runs.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say where the report is as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    from rlhfctl.cli.report import ReportRequest, report
    from rlhfctl.console import Terminal

    terminal = Terminal(quiet=quiet, as_json=as_json)
    report(ReportRequest(runs or [], runs_dir, form, output), terminal)
