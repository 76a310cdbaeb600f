"""Which recipe and which run folder a command works on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import UsageError
from rlhfctl.recipe.load import LoadedRecipe, Override, load_recipe, shipped_recipe
from rlhfctl.run.directory import RECIPE_FILE, RunDirectory

if TYPE_CHECKING:
    from rlhfctl.cli.options import GivenKeys, Settings

DEFAULT_RECIPE = Path("recipes/base.yaml")
VARIABLE = "RLHFCTL_RECIPE"
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Choice:
    """The recipe that was taken, and why.

    Attributes:
        path: The file.
        reason: Why this one, in words.
        run: The run whose own recipe it is; None for a recipe of its own.
    """

    path: Path
    reason: str
    run: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A command's recipe, checked, and its run folder."""

    choice: Choice
    loaded: LoadedRecipe
    directory: RunDirectory


def resolve(settings: Settings, keys: GivenKeys) -> Resolved:
    """Find and read the recipe, apply what the command line sets, and name the run folder.

    Raises:
        UsageError: No such recipe, or a run name that is none.
        RecipeError: The recipe, or an option that sets one of its keys, is wrong.
    """
    if settings.run is not None:
        check_run_name(settings.run)
    choice = choose_recipe(settings)
    overrides: list[str | Override] = list(settings.set or [])
    overrides += [Override(key.key, value, key.flag) for key, value in keys]
    if settings.seed is not None:
        overrides.append(Override("seed", settings.seed, "--seed"))
    if settings.run is not None:
        overrides.append(Override("name", settings.run, "--run"))
    elif choice.run is not None:
        overrides.insert(0, Override("name", choice.run, "the run's folder"))
    loaded = load_recipe(choice.path, overrides)
    return Resolved(choice, loaded, RunDirectory(settings.runs_dir / loaded.recipe.name))


def check_run_name(name: str) -> None:
    """Refuse a name that no run folder may have.

    Raises:
        UsageError: It is one.
    """
    if not _RUN_NAME.fullmatch(name):
        raise UsageError(
            f"--run {name}: not a run's name",
            hint="up to 64 small letters, digits, dots, dashes and underscores, "
            "beginning with a letter or digit",
        )


def choose_recipe(settings: Settings) -> Choice:
    """Choose the recipe: argument, RLHFCTL_RECIPE, the run's, the newest run's, base.yaml.

    Raises:
        UsageError: The recipe named by argument or variable is not there.
    """
    if settings.recipe is not None:
        return _named(settings.recipe, "the argument", settings.runs_dir)
    if os.environ.get(VARIABLE):
        return _named(Path(os.environ[VARIABLE]), VARIABLE, settings.runs_dir)
    if settings.run is not None:
        own = RunDirectory(settings.runs_dir / settings.run).recipe
        if own.is_file():
            return Choice(own, f"run {settings.run}", settings.run)
    newest = newest_run(settings.runs_dir)
    if newest is not None:
        return Choice(newest.recipe, "the newest run's", newest.name)
    return _named(DEFAULT_RECIPE, "the default", settings.runs_dir)


def newest_run(runs_dir: Path) -> RunDirectory | None:
    """Return the run in which a stage was last started; None when there are no runs."""
    if not runs_dir.is_dir():
        return None
    runs = [
        (recipe.stat().st_mtime_ns, recipe.parent.name)
        for recipe in runs_dir.glob(f"*/{RECIPE_FILE}")
        if _RUN_NAME.fullmatch(recipe.parent.name)
    ]
    return RunDirectory(runs_dir / max(runs)[1]) if runs else None


def _named(path: Path, reason: str, runs_dir: Path) -> Choice:
    """Return the recipe at a path; one that is not there may be a shipped one."""
    if path.exists():
        is_run = path.name == RECIPE_FILE and path.resolve().parent.parent == runs_dir.resolve()
        return Choice(path, reason, path.resolve().parent.name if is_run else None)
    shipped = shipped_recipe(path.name) if path.parent.name in {"", "recipes"} else None
    if shipped is None:
        raise UsageError(
            f"there is no such recipe ({reason})",
            where=str(path),
            hint="`recipes/base.yaml` is one that runs anywhere",
        )
    return Choice(shipped, f"{reason}; shipped with rlhfctl")
