"""lm-evaluation-harness tasks on the in-memory policies, without merging adapters."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.evaluation.tax import compare
from rlhfctl.recipe.permissions import require_code
from rlhfctl.recipe.user_code import is_task_file
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
    """Return all metrics of the recipe's tasks, by ``TASK.METRIC``.

    Metrics that are a mean over examples have paired intervals. Others, such as corpus BLEU, have
    values and differences only.

    Args:
        context: The evaluation.
        compared: Policy name -> role.

    Raises:
        EnvironmentFault: The harness is not installed, or a task's data is not available.
        RecipeError: A task is neither in the harness nor a task file.
        UnsafeError: A task is a file, and the user did not allow code.
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
    """Return the harness's task index and the tasks, by name or YAML file."""
    from lm_eval.tasks import TaskManager

    files = [name for name in names if is_task_file(name)]
    for file in files:
        require_code("task file", file, _KEY)
    # Indexing the harness's own tasks takes seconds.
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
            f"the data of a task is not available: {error}",
            _KEY,
            "Download the data set into the Hub cache while online, or name a local file.",
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
    with role_models.autocast():
        results: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=list(tasks),
            # Without it each call would index all of the harness's tasks again.
            task_manager=manager,
            num_fewshot=section.num_fewshot,
            limit=section.limit,
            apply_chat_template=section.chat_template,
            # rlhfctl computes paired intervals of differences instead.
            bootstrap_iters=0,
            random_seed=context.recipe.seed,
            numpy_random_seed=context.recipe.seed,
            torch_random_seed=context.recipe.seed,
            fewshot_random_seed=context.recipe.seed,
        )
    return results


def _metrics(
    results: Mapping[str, Mapping[str, Any]],
    task: str,
    metric: str,
    chosen: str,
    higher_is_better: bool,
    seed: int,
) -> TaxTask:
    aggregates = {
        name: float(output["results"][task][f"{metric},{chosen}"])
        for name, output in results.items()
    }
    values = {
        name: _example_values(output["samples"][task], metric, chosen)
        for name, output in results.items()
    }
    if all(
        part is not None and np.isclose(part.mean(), aggregates[name], rtol=1e-9, atol=1e-12)
        for name, part in values.items()
    ):
        per_example = {name: part for name, part in values.items() if part is not None}
        return compare(per_example, seed, metric=metric, higher_is_better=higher_is_better)

    def difference(one: str, two: str) -> Estimate | None:
        both = one in aggregates and two in aggregates
        return Estimate(aggregates[one] - aggregates[two]) if both else None

    return TaxTask(
        metric=metric,
        higher_is_better=higher_is_better,
        examples=len(next(iter(results.values()))["samples"][task]),
        **aggregates,
        ppo_minus_sft=difference("ppo", "sft"),
        sft_minus_base=difference("sft", "base"),
    )


def _example_values(
    samples: Sequence[Mapping[str, Any]], metric: str, chosen: str
) -> NDArray[np.float64] | None:
    """Return [examples] values of a metric in order of the examples; None if any is missing."""
    filtered = [sample for sample in samples if sample["filter"] == chosen]
    values = [
        sample.get(metric) for sample in sorted(filtered, key=lambda sample: sample["doc_id"])
    ]
    if not values or not all(isinstance(value, int | float) for value in values):
        return None
    return np.array(values, dtype=np.float64)
