"""Checks of what a recipe names in libraries: optimizers, attention, trackers, modules, metrics."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models.compiler import require_compiler
from rlhfctl.models.hub import model_source
from rlhfctl.preflight.engine import check_engine
from rlhfctl.preflight.finding import Finding, environment_error
from rlhfctl.recipe.generation import CACHE_KEY
from rlhfctl.recipe.library_names import (
    ATTENTION_PACKAGES,
    KERNELS,
    LIGER_KEY,
    LIGER_PACKAGE,
    OPTIMIZER_PACKAGES,
    TRACKER_PACKAGES,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rlhfctl.recipe.schema import ModelSection, Recipe

_NEEDS_GPU = ("adamw_8bit", "paged_adamw_8bit")
"""Optimizers that PPO uses on a CUDA GPU only."""


def check_packages(recipe: Recipe) -> Iterator[Finding]:
    """Check the programs of optimizers, attention, sampling and trackers; names are the schema's."""
    yield from _optimizers(recipe)
    yield from _attention_package(recipe.model)
    yield from _liger(recipe.model)
    yield from check_engine(recipe)
    yield from _compiler(recipe)
    yield from _trackers(recipe)
    if recipe.sweep.set:
        yield Finding("not checked", "`rlhfctl sweep` checks its settings", "sweep.set")
    if recipe.evaluation.gates:
        yield Finding("ok", ", ".join(recipe.evaluation.gates), "evaluation.gates")


def _optimizers(recipe: Recipe) -> Iterator[Finding]:
    names = {
        "sft.optim": recipe.sft.optim,
        "reward_model.optim": recipe.reward_model.optim,
        "ppo.optim": recipe.ppo.optim,
    }
    for name in dict.fromkeys(names.values()):
        where = ", ".join(key for key, value in names.items() if value == name)
        package = OPTIMIZER_PACKAGES.get(name)
        if package is not None and not _is_installed(package):
            yield Finding(
                "error",
                f"{name} needs the package {package}, which is not installed",
                where,
                "install it, or use adamw_torch",
                "environment",
            )
        elif name in _NEEDS_GPU and "ppo.optim" in where:
            yield Finding("not checked", f"{name} needs a CUDA GPU when PPO starts", where)
        else:
            yield Finding("ok", name, where)


def _attention_package(section: ModelSection) -> Iterator[Finding]:
    name, where = section.attn_implementation, "model.attn_implementation"
    if name is None:
        return
    if "/" in name:
        yield Finding("not checked", f"{name}: code from the Hub", where)
        return
    package = ATTENTION_PACKAGES.get(name)
    if package is None or _is_installed(package):
        return
    if _is_installed(KERNELS):
        what = f"{name}: the package {KERNELS} downloads it when training starts"
        yield Finding("not checked", what, where)
        return
    yield Finding(
        "error",
        f"{name} needs the package {package} or {KERNELS}, and neither is installed",
        where,
        "install one on the machine that trains, or use sdpa",
        "environment",
    )


def _liger(section: ModelSection) -> Iterator[Finding]:
    if not section.use_liger_kernel:
        return
    if not _is_installed(LIGER_PACKAGE):
        what = "the package liger-kernel is not installed"
        yield Finding("error", what, LIGER_KEY, "install rlhfctl[liger]", "environment")
        return
    what = "liger-kernel: its kernels need a GPU when a model is loaded"
    yield Finding("not checked", what, LIGER_KEY)


def _compiler(recipe: Recipe) -> Iterator[Finding]:
    if recipe.generation.cache_implementation != "static":
        return
    try:
        yield Finding("ok", f"static: compiled by {require_compiler(CACHE_KEY)}", CACHE_KEY)
    except EnvironmentFault as error:
        yield environment_error(error)


def _trackers(recipe: Recipe) -> Iterator[Finding]:
    where = "tracking.report_to"
    for name in recipe.tracking.report_to:
        packages = TRACKER_PACKAGES[name]
        if any(map(_is_installed, packages)):
            yield Finding("ok", f"{name}: the package is installed", where)
        else:
            yield Finding(
                "warning",
                f"{name} needs the package {packages[0]}, which is not installed, so it would "
                "receive no metrics",
                where,
                f"install it: pip install {packages[0]}",
            )


def check_architecture(recipe: Recipe) -> Iterator[Finding]:
    """Check adapter targets and attention against the model, if its config is on this machine.

    Where the recipe names neither, nothing is built, and torch is not imported.

    Raises:
        RecipeError: The model has no such modules, or not this attention implementation.
        EnvironmentFault: The attention implementation needs a package.
    """
    section, lora = recipe.model, recipe.lora
    keys = [
        *(["lora.target_modules"] if lora and lora.target_modules != "all-linear" else []),
        *(["model.attn_implementation"] if _is_buildable(section.attn_implementation) else []),
    ]
    if not keys:
        return
    where = ", ".join(keys)
    if section.trust_remote_code:
        yield Finding("not checked", "the model's own code was not run", where)
        return
    folder = local_folder(section)
    if folder is None:
        yield Finding("not checked", f"the config of {section.name_or_path} is on the Hub", where)
        return
    from rlhfctl.models.modules import check_modules

    if not _is_buildable(section.attn_implementation):
        section = section.model_copy(update={"attn_implementation": None})
    local = section.model_copy(update={"name_or_path": str(folder), "revision": None})
    adapted = check_modules(local, lora, str(folder))
    count = f"{adapted:,} modules with an adapter" if lora else "as the architecture allows"
    yield Finding("ok", count, where)


def _is_buildable(attention: str | None) -> bool:
    """Return whether a model can be built with an implementation, without a download."""
    if attention is None or "/" in attention:
        return False
    package = ATTENTION_PACKAGES.get(attention)
    return package is None or _is_installed(package)


def local_folder(section: ModelSection) -> Path | None:
    """Return the folder with the model's config: its own, or a snapshot in the Hub's cache.

    Raises:
        EnvironmentFault: The path is not a model folder.
        UnsafeError: Its config would run code and the recipe does not allow it.
    """
    from rlhfctl.models.architecture import config_path

    path = config_path(section, model_source(section))
    return None if path is None else path.parent


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
