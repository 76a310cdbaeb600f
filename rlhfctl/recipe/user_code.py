"""Python code that a recipe names: functions, and tasks of lm-evaluation-harness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.recipe.permissions import require_code, require_remote_code
from rlhfctl.stage_table import STAGES

if TYPE_CHECKING:
    from collections.abc import Collection

    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stage_table import Stage


@dataclass(frozen=True)
class UserCode:
    """Code that a recipe names.

    Attributes:
        kind: Noun phrase, such as ``reward function``.
        name: `module:function`, or the path of a task file.
        key: Recipe key.
    """

    kind: str
    name: str
    key: str

    @property
    def is_file(self) -> bool:
        """True for a task file, False for a function."""
        return is_task_file(self.name)


def require_permission(recipe: Recipe, stages: Collection[Stage] = STAGES) -> None:
    """Refuse code that stages would run without the user's permission, before any of them starts.

    Raises:
        UnsafeError: Names the first key and its value.
    """
    for code in user_code(recipe, stages):
        require_code(code.kind, code.name, code.key)
    require_remote_code(recipe.model)


def user_code(recipe: Recipe, stages: Collection[Stage] = STAGES) -> list[UserCode]:
    """Return the code that some stages run, in the schema's order."""
    named = [
        UserCode("reward function", source.source, f"ppo.reward_sources.{index}")
        for index, source in enumerate(recipe.ppo.reward_sources)
        if source.kind == "function"
    ]
    if recipe.evaluation.judge_function is not None:
        judge = recipe.evaluation.judge_function
        named.append(UserCode("judge function", judge, "evaluation.judge_function"))
    # A task file may name Python functions beside it (`!function`).
    named += [
        UserCode("task file", task, "evaluation.tax.tasks")
        for task in recipe.evaluation.tax.tasks
        if is_task_file(task)
    ]
    return [code for code in named if any(stage.declared([code.key]) for stage in stages)]


def is_task_file(task: str) -> bool:
    """Return whether a task of lm-evaluation-harness is a file rather than a name."""
    return task.endswith((".yaml", ".yml"))
