"""Recipe and run folder of a command."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.recipe.load import LoadedRecipe, Override, load_recipe, shipped_recipe
from rlhfctl.run.directory import LATEST_LINK, RECIPE_FILE, RunDirectory, linked_run
from rlhfctl.run.sealed import has_changed

if TYPE_CHECKING:
    from rlhfctl.cli.options import RunOptions

DEFAULT_RECIPE = Path("recipes/base.yaml")
VARIABLE = "RLHFCTL_RECIPE"
_RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Choice:
    """The recipe in use and its origin.

    Attributes:
        path: Recipe file.
        reason: Origin: an argument, an environment variable, a run or the default.
        run: The run that the recipe belongs to; None for a standalone recipe.
    """

    path: Path
    reason: str
    run: str | None = None


@dataclass(frozen=True)
class Resolved:
    """A validated recipe and its run folder."""

    choice: Choice
    loaded: LoadedRecipe
    directory: RunDirectory


def resolve(options: RunOptions) -> Resolved:
    """Load the recipe, apply the command line's overrides, and choose the run folder.

    Raises:
        UsageError: The recipe does not exist, or the run name is invalid.
        RecipeError: The recipe or an override is invalid, or the run would be named `latest`.
    """
    if options.run == LATEST_LINK:
        options = replace(options, run=_linked(options.runs_dir))
    if options.run is not None:
        check_run_name(options.run)
    choice = choose_recipe(options)
    overrides: list[str | Override] = list(options.set or [])
    overrides += options.overrides
    if options.seed is not None:
        overrides.append(Override("seed", options.seed, "--seed"))
    if options.run is not None:
        overrides.append(Override("name", options.run, "--run"))
    elif choice.run is not None:
        overrides.insert(0, Override("name", choice.run, "the run folder"))
    loaded = load_recipe(choice.path, overrides)
    if loaded.recipe.name == LATEST_LINK:
        raise RecipeError(
            f"name: cannot be {LATEST_LINK}, which is the link to the newest run",
            loaded.origins["name"],
            "choose another name",
        )
    return Resolved(choice, loaded, RunDirectory(options.runs_dir / loaded.recipe.name))


def _linked(runs_dir: Path) -> str:
    """Return the name of the run that `latest` points to.

    Raises:
        UsageError: There is no such link.
        UnsafeError: It leads out of the directory for runs.
    """
    name = linked_run(runs_dir)
    if name is None:
        raise UsageError(
            f"--run {LATEST_LINK}: no run has begun", str(runs_dir), "start one with `rlhfctl run`"
        )
    return name


def is_run_name(name: str) -> bool:
    """Return whether a run can have a name: one that cannot lead elsewhere, and is no link's."""
    return _RUN_NAME.fullmatch(name) is not None and name != LATEST_LINK


def check_run_name(name: str) -> None:
    """Check that a name can be a run folder.

    Raises:
        UsageError: The name is invalid.
    """
    if not is_run_name(name):
        raise UsageError(
            f"--run {name}: invalid run name",
            hint="use up to 64 lowercase letters, digits, dots, dashes and underscores, "
            "starting with a letter or digit",
        )


def choose_recipe(options: RunOptions) -> Choice:
    """Return the recipe: argument, RLHFCTL_RECIPE, the run's, the newest run's or base.yaml.

    Raises:
        UsageError: The recipe of the argument or the variable does not exist.
        RecipeError: The recipe of a run has changed since the run.
    """
    if options.recipe is not None:
        return _named(options.recipe, "argument", options.runs_dir)
    if os.environ.get(VARIABLE):
        return _named(Path(os.environ[VARIABLE]), VARIABLE, options.runs_dir)
    if options.run is not None:
        run_recipe = RunDirectory(options.runs_dir / options.run).recipe
        if run_recipe.is_file():
            _require_unchanged(run_recipe)
            return Choice(run_recipe, f"run {options.run}", options.run)
    newest = newest_run(options.runs_dir)
    if newest is not None:
        _require_unchanged(newest.recipe)
        return Choice(newest.recipe, "newest run", newest.name)
    return _named(DEFAULT_RECIPE, "default", options.runs_dir)


def _require_unchanged(recipe: Path) -> None:
    """Refuse a run's recipe that is not as rlhfctl wrote it, unless the user names the file."""
    try:
        changed = has_changed(recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # loading says what is wrong
    if changed:
        raise RecipeError(
            "the recipe of this run was edited or damaged since rlhfctl wrote it",
            str(recipe),
            f"restore it from a copy; to use it as it is, name it: rlhfctl COMMAND {recipe}",
        )


def newest_run(runs_dir: Path) -> RunDirectory | None:
    """Return the run with the newest recipe file; None if there are no runs."""
    if not runs_dir.is_dir():
        return None
    runs = [
        (recipe.stat().st_mtime_ns, recipe.parent.name)
        for recipe in runs_dir.glob(f"*/{RECIPE_FILE}")
        if is_run_name(recipe.parent.name)
    ]
    return RunDirectory(runs_dir / max(runs)[1]) if runs else None


def _named(path: Path, reason: str, runs_dir: Path) -> Choice:
    """Return the recipe at a path, or the shipped recipe of that name."""
    if path.exists():
        is_run = path.name == RECIPE_FILE and path.resolve().parent.parent == runs_dir.resolve()
        return Choice(path, reason, path.resolve().parent.name if is_run else None)
    shipped = shipped_recipe(path.name) if path.parent.name in {"", "recipes"} else None
    if shipped is None:
        raise UsageError(
            f"recipe not found ({reason})",
            where=str(path),
            hint="pass a file, or a name that `rlhfctl recipes` lists",
        )
    return Choice(shipped, f"{reason}; shipped with rlhfctl")
