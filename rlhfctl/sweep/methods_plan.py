"""Runs of a comparison of methods: SFT and reward model once per seed, then every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.pipeline import needed_stages
from rlhfctl.recipe.load import Override, load_recipe
from rlhfctl.stage_table import DPO, EVALUATION, SFT
from rlhfctl.sweep.plan import Job, PointReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.methods import Judge

ESTIMATORS = {"ppo": "gae", "rloo": "rloo", "grpo": "grpo", "batch_mean": "batch_mean"}
"""Method -> its `ppo.advantage_estimator`."""
METHODS = (*ESTIMATORS, "dpo", "best_of_n")
BETA_FACTORS = (1.0, 1 / 3, 3.0)
"""DPO is trained with each of these multiples of `dpo.beta`, one point of its frontier each."""
RESPONSES_PER_PROMPT = 4
BEST_OF_N = 16
_LABEL = "rlhfctl compare"


@dataclass(frozen=True)
class MethodJobs:
    """Runs of one method with one seed.

    Attributes:
        method: One of `METHODS`.
        seed: Seed of the runs.
        training: Runs that train it; the first is its result. Empty for best-of-n.
        evaluations: Runs that evaluate each of them against SFT, in the same order.
        needs: Shared runs whose time counts as the method's.
    """

    method: str
    seed: int
    training: tuple[Job, ...]
    evaluations: tuple[Job, ...]
    needs: tuple[str, ...]

    @property
    def jobs(self) -> list[Job]:
        """All of its runs, each once, in dependency order."""
        return list({job.name: job for job in (*self.training, *self.evaluations)}.values())


@dataclass(frozen=True)
class MethodsPlan:
    """All runs of a comparison; shared runs are in dependency order."""

    judge: Judge
    methods: tuple[MethodJobs, ...]
    shared: tuple[Job, ...]

    @property
    def jobs(self) -> list[Job]:
        """All runs, shared ones first."""
        return [*self.shared, *(job for method in self.methods for job in method.jobs)]


def read_methods(text: str) -> list[str]:
    """Return the methods of a comma-separated list.

    Raises:
        UsageError: One is unknown or named twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise UsageError(
                f"--methods: there is no method {name or 'without a name'}",
                hint=f"choose from {', '.join(METHODS)}",
            )
        if names.count(name) > 1:
            raise UsageError(f"--methods: {name} is named twice", hint="name it once")
    return names


def make_methods_plan(
    path: Path, overrides: Sequence[str | Override], methods: Sequence[str], seeds: int, root: Path
) -> MethodsPlan:
    """Read the recipe for every method and seed, and determine the shared runs.

    Args:
        path: Recipe file.
        overrides: Overrides common to all.
        methods: Names of methods.
        seeds: Number of seeds, counted from the recipe's.
        root: Folder of the runs.

    Raises:
        RecipeError: The recipe is invalid with some method, or has nothing to judge by.
    """
    recipe = load_recipe(path, overrides).recipe
    judge = _judge(recipe)
    shared: dict[str, Job] = {}
    runs = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        for method in methods:
            changes = [("seed", str(seed)), *_changes(method, recipe)]
            extra = tuple(Override(key, value, _LABEL) for key, value in changes)
            reader = PointReader(path, (*overrides, *extra), root, shared)
            runs.append(_method_jobs(method, seed, recipe, reader))
    return MethodsPlan(judge, tuple(runs), tuple(shared.values()))


def _judge(recipe: Recipe) -> Judge:
    """Return the score to judge by.

    Raises:
        RecipeError: There is none besides the reward that methods are trained on, or no policy of
            this run would be trained.
    """
    external = {
        "ppo.sft": recipe.ppo.sft,
        "ppo.rm": recipe.ppo.rm,
        "dpo.sft": recipe.dpo.sft,
        "reward_model.sft": recipe.reward_model.sft,
        "evaluation.sft": recipe.evaluation.sft,
        "evaluation.rm": recipe.evaluation.rm,
        "evaluation.ppo": recipe.evaluation.ppo,
    }
    for key, path in external.items():
        if path is not None:
            raise RecipeError(
                "a comparison trains SFT, reward model and policies itself, once per seed",
                key,
                "leave the key out",
            )
    if not recipe.ppo.uses_rm:
        raise RecipeError(
            "a comparison needs the reward model that best-of-n and PPO share",
            "ppo.reward_sources",
            "name rm among them",
        )
    if recipe.ppo.eval_rollouts is None:
        raise RecipeError(
            "a comparison at equal KL needs PPO's held-out evaluations",
            "ppo.eval_rollouts",
            "set it to a number of rollouts",
        )
    if recipe.data.prompts.is_embedded:
        return "gold"
    if recipe.reward_model.judge_share or recipe.evaluation.judge_rm is not None:
        return "held_out_rm"
    raise RecipeError(
        "nothing independent of the training reward can judge the methods",
        "reward_model.judge_share",
        "set it, such as to 0.2, or name a reward model by evaluation.judge_rm",
    )


def _changes(method: str, recipe: Recipe) -> list[tuple[str, str]]:
    """Return the keys that a method sets; best-of-n is evaluated by its own method alone."""
    if method == "best_of_n":
        samples = recipe.evaluation.best_of_n or BEST_OF_N
        return [
            ("evaluation.best_of_n", str(samples)),
            ("evaluation.best_of_n_prompts", str(recipe.evaluation.num_prompts)),
        ]
    changes = [("evaluation.best_of_n", "0")]
    if method in ESTIMATORS:
        changes.append(("ppo.advantage_estimator", ESTIMATORS[method]))
        changes.append(("ppo.responses_per_prompt", str(_responses(method, recipe))))
    return changes


def _responses(method: str, recipe: Recipe) -> int:
    """Return the responses per prompt; the episodes, and so the budget, stay the same."""
    own = recipe.ppo.responses_per_prompt
    return max(own, RESPONSES_PER_PROMPT) if method in {"rloo", "grpo"} and own < 2 else own


def _method_jobs(method: str, seed: int, recipe: Recipe, reader: PointReader) -> MethodJobs:
    name = f"{method.replace('_', '-')}-seed-{seed}"
    plain = reader.read(name)
    checkpoints, needs = reader.shared_checkpoints(plain)
    if method in ESTIMATORS:
        trained = reader.read(name, checkpoints)
        job = Job(name, "run", tuple(needed_stages(trained)), trained, tuple(needs))
        return MethodJobs(method, seed, (job,), (job,), tuple(needs))
    if method == "best_of_n":
        evaluated = reader.read(name, checkpoints)
        job = Job(name, EVALUATION.command, (EVALUATION.name,), evaluated, tuple(needs))
        return MethodJobs(method, seed, (), (job,), tuple(needs))
    pairs = [
        _dpo_jobs(name, recipe.dpo.beta * factor, reader, checkpoints, needs)
        for factor in BETA_FACTORS
    ]
    training, evaluations = zip(*pairs, strict=True)
    return MethodJobs(method, seed, training, evaluations, _of_sft(needs))


def _of_sft(needs: Sequence[str]) -> tuple[str, ...]:
    """Return the shared runs that DPO needs: its evaluation alone needs a reward model."""
    return tuple(name for name in needs if name.startswith(f"shared-{SFT.name}-"))


def _dpo_jobs(
    name: str,
    beta: float,
    reader: PointReader,
    checkpoints: Sequence[Override],
    needs: Sequence[str],
) -> tuple[Job, Job]:
    """Return the runs that train and evaluate DPO with one beta."""
    own = f"{name}-beta-{beta:.4g}"
    settings = [*checkpoints, Override("dpo.beta", f"{beta:.6g}", _LABEL)]
    training = Job(own, DPO.command, (DPO.name,), reader.read(own, settings), _of_sft(needs))
    folder = str((reader.root / own / DPO.folder).absolute())
    settings.append(Override("evaluation.ppo", folder, _LABEL))
    evaluation = f"{own}-eval"
    return training, Job(
        evaluation,
        EVALUATION.command,
        (EVALUATION.name,),
        reader.read(evaluation, settings),
        (*needs, own),
    )
