"""lm-evaluation-harness: its tasks put to the policies as they lie in memory, nothing merged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.evaluation.tax import compare
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import TaxTask
from rlhfctl.run.extras import require_harness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from rlhfctl.models.role_models import Role
    from rlhfctl.stages.evaluation.context import EvalContext

_KEY = "evaluation.tax.tasks"


def harness_tasks(context: EvalContext, compared: Mapping[str, Role]) -> dict[str, TaxTask]:
    """Return the metrics of every metric of the recipe's tasks, by ``TASK.METRIC``.

    Metrics that are a mean over examples have paired intervals; of others, such as a corpus's BLEU,
    the three values and their differences alone are known.

    Args:
        context: The evaluation under way.
        compared: The role of each policy.

    Raises:
        EnvironmentFault: The harness is not installed, or a task's data cannot be had.
        RecipeError: A task is none of the harness's, and no file of one.
    """
    section = context.recipe.evaluation.tax
    require_harness(section.tasks)
    if not section.tasks:
        return {}
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager, tasks = _load(section.tasks)
    results = {name: _evaluate(context, role, manager, tasks) for name, role in compared.items()}
    first = next(iter(results.values()))
    metrics: dict[str, TaxTask] = {}
    for task, better in first["higher_is_better"].items():
        for key in first["results"][task]:
            metric, _, chosen = key.partition(",")
            if metric not in better:
                continue
            name = f"{task}.{metric}" if chosen == "none" else f"{task}.{metric}.{chosen}"
            metrics[name] = _metrics(
                results, task, metric, chosen, better[metric] is not False, context.recipe.seed
            )
    return metrics


def _load(names: Sequence[str]) -> tuple[Any, list[Any]]:
    """Return the harness's index and task objects: of a name in it, or of a YAML file."""
    from lm_eval.tasks import TaskManager

    files = [name for name in names if name.endswith((".yaml", ".yml"))]
    # To index its own thousands of tasks takes seconds.
    manager = TaskManager(include_defaults=len(files) < len(names))
    unknown = [name for name in names if name not in files and name not in manager.task_index]
    if unknown:
        raise RecipeError(
            f"lm-evaluation-harness has no task {', '.join(unknown)}",
            _KEY,
            "`lm_eval ls tasks` lists them; a task of your own is the path of its .yaml file.",
        )
    try:
        return manager, list(manager.load(list(names))["tasks"].values())
    except OSError as error:
        raise EnvironmentFault(
            f"the data of a task cannot be had: {error}",
            _KEY,
            "Put the data set into the hub's cache while there is a network, or name a local file.",
        ) from error


def _evaluate(
    context: EvalContext, role: Role, manager: Any, tasks: Sequence[Any]
) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    section, role_models = context.recipe.evaluation.tax, context.roles.models
    role_models.activate(role, training=False)
    model = HFLM(
        pretrained=role_models.language_model(role),
        tokenizer=context.session.tokenizer,
        batch_size=section.batch_size,
    )
    found: dict[str, Any] = simple_evaluate(
        model=model,
        tasks=list(tasks),
        # Without it each call would index all of the harness's tasks anew.
        task_manager=manager,
        num_fewshot=section.num_fewshot,
        limit=section.limit,
        apply_chat_template=section.chat_template,
        # Intervals are of differences and our own.
        bootstrap_iters=0,
        random_seed=context.recipe.seed,
        numpy_random_seed=context.recipe.seed,
        torch_random_seed=context.recipe.seed,
        fewshot_random_seed=context.recipe.seed,
    )
    return found


def _metrics(
    results: Mapping[str, Mapping[str, Any]],
    task: str,
    metric: str,
    chosen: str,
    higher_is_better: bool,
    seed: int,
) -> TaxTask:
    wholes = {
        name: float(found["results"][task][f"{metric},{chosen}"]) for name, found in results.items()
    }
    values = {
        name: _each(found["samples"][task], metric, chosen) for name, found in results.items()
    }
    if all(
        part is not None and np.isclose(part.mean(), wholes[name], rtol=1e-9, atol=1e-12)
        for name, part in values.items()
    ):
        known = {name: part for name, part in values.items() if part is not None}
        return compare(known, seed, metric=metric, higher_is_better=higher_is_better)

    def difference(one: str, two: str) -> Estimate | None:
        both = one in wholes and two in wholes
        return Estimate(wholes[one] - wholes[two]) if both else None

    return TaxTask(
        metric=metric,
        higher_is_better=higher_is_better,
        examples=len(next(iter(results.values()))["samples"][task]),
        **wholes,
        ppo_minus_sft=difference("ppo", "sft"),
        sft_minus_base=difference("sft", "base"),
    )


def _each(
    samples: Sequence[Mapping[str, Any]], metric: str, chosen: str
) -> NDArray[np.float64] | None:
    """Return [examples] a metric of each, in the examples' order; None where it has none."""
    mine = [sample for sample in samples if sample["filter"] == chosen]
    found = [sample.get(metric) for sample in sorted(mine, key=lambda sample: sample["doc_id"])]
    if not found or not all(isinstance(value, int | float) for value in found):
        return None
    return np.array(found, dtype=np.float64)
