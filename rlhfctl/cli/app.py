"""The command line: its commands, in the order of the help page.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from collections.abc import Callable
from typing import Annotated

import typer

import rlhfctl
from rlhfctl.cli.boundary import Boundary
from rlhfctl.cli.compare_command import compare
from rlhfctl.cli.data import app as data_app
from rlhfctl.cli.doctor_command import doctor
from rlhfctl.cli.dpo_command import dpo
from rlhfctl.cli.fetch_command import fetch
from rlhfctl.cli.finished_commands import chat, export, push, sample
from rlhfctl.cli.help import BEFORE, HELP_NAMES, RESULTS, TRAINING, example
from rlhfctl.cli.init_command import init
from rlhfctl.cli.migrate_command import migrate
from rlhfctl.cli.plan_command import plan
from rlhfctl.cli.recipe_commands import recipes, schema, show, validate
from rlhfctl.cli.report_command import report
from rlhfctl.cli.runs import app as runs_app
from rlhfctl.cli.stage_commands import evaluate, ppo, run, sft, train_rm
from rlhfctl.cli.sweep_command import sweep
from rlhfctl.cli.watch import watch_run
from rlhfctl.errors import EXIT_CODE_MEANINGS


def _exit_codes() -> str:
    codes = [f"{int(code):>3}  {meaning}" for code, meaning in EXIT_CODE_MEANINGS.items()]
    return "Exit codes\n" + "\n".join(codes)


app = typer.Typer(
    name="rlhfctl",
    cls=Boundary,
    help="RLHF that a single engineer can run and trust: SFT, reward model, PPO, evaluation.",
    epilog=_exit_codes(),
    context_settings=HELP_NAMES,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"rlhfctl {rlhfctl.__version__}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    from rlhfctl.recipe.offline import go_offline, is_offline
    from rlhfctl.run.log_capture import quiet_environment

    quiet_environment()
    if is_offline():
        go_offline()


def _add(name: str, panel: str, command: Callable[..., None], shown: str) -> None:
    """Register a command with its panel on the help page and an example of its use."""
    app.command(name, rich_help_panel=panel, epilog=example(shown))(command)


_add("init", BEFORE, init, "rlhfctl init mine.yaml --from tldr-pythia-1b")
_add("migrate", BEFORE, migrate, "rlhfctl migrate sft.yaml reward.yaml ppo.yaml -o mine.yaml")
_add("recipes", BEFORE, recipes, "rlhfctl recipes smollm2-135m")
_add("schema", BEFORE, schema, "rlhfctl schema > recipe.schema.json")
_add("validate", BEFORE, validate, "rlhfctl validate mine.yaml --set ppo.beta=0.1")
_add("show", BEFORE, show, "rlhfctl show base --set ppo.beta=0.1")
_add("doctor", BEFORE, doctor, "rlhfctl doctor mine.yaml")
_add("fetch", BEFORE, fetch, "rlhfctl fetch smollm2-135m --dry-run")
_add("plan", BEFORE, plan, "rlhfctl plan tldr-pythia-1b --gpu RTX4090")
app.add_typer(data_app, name="data", rich_help_panel=BEFORE)
_add("run", TRAINING, run, "rlhfctl run base --run first --seed 1")
_add("sft", TRAINING, sft, "rlhfctl sft base --epochs 2")
_add("train-rm", TRAINING, train_rm, "rlhfctl train-rm --learning-rate 1e-4")
_add("ppo", TRAINING, ppo, "rlhfctl ppo --beta 0.1 --episodes 5000")
_add("dpo", TRAINING, dpo, "rlhfctl dpo base --beta 0.1 --epochs 1")
_add("eval", TRAINING, evaluate, "rlhfctl eval --prompts 512")
_add("sweep", TRAINING, sweep, "rlhfctl sweep base --set ppo.beta=0.02,0.1 --jobs 2")
_add("compare", TRAINING, compare, "rlhfctl compare base --methods ppo,dpo --seeds 3")
_add("report", RESULTS, report, "rlhfctl report first second")
_add("watch", RESULTS, watch_run, "rlhfctl watch first")
app.add_typer(runs_app, name="runs", rich_help_panel=RESULTS)
_add("sample", RESULTS, sample, 'rlhfctl sample --prompt "What is 3 plus 4?"')
_add("chat", RESULTS, chat, "rlhfctl chat --stage sft")
_add("export", RESULTS, export, "rlhfctl export --stage ppo --merge --output exports/ppo")
_add("push", RESULTS, push, "rlhfctl push --merge --repo me/my-policy --dry-run")
