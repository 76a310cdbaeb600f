"""Reward functions and servers, called as TRL's GRPO calls its reward functions."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import DataError, RecipeError, RlhfctlError
from rlhfctl.recipe.permissions import require_code
from rlhfctl.stages.shared.timed_calls import CallExitError, CallTimeoutError, contained, start_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from rlhfctl.data.formatting import Formatter
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.stages.shared.prompt_rows import PromptRows

KEY = "ppo.reward_sources"
ARGUMENTS = frozenset({"prompts", "completions", "completion_ids"})
_FIX = "Fix it; --debug shows where it failed."
_WANTS_MESSAGES = "string indices must be integers"
"""Python's words for `completion[0]["content"]` where the completion is text."""
_READS_MESSAGES = (
    "It may read completions as messages, as TRL gives them for conversations: set completions: "
    "messages for this source. --debug shows where it failed."
)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def import_function(text: str, key: str = KEY) -> Callable[..., Sequence[float]]:
    """Import `module:function`, from the working folder or the environment.

    Args:
        text: Value in the recipe.
        key: The recipe's key, for errors.

    Raises:
        UnsafeError: It is not rlhfctl's own, and the user did not allow to import it.
        RecipeError: There is no such module or function, or its import fails.
        DataError: The module ends the process when it is imported.
    """
    require_code("function", text, key)
    module_name, _, name = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = contained(lambda: getattr(importlib.import_module(module_name), name))
    except CallExitError as error:
        raise DataError(
            f"the function cannot be imported: {error}",
            f"{key}: {text}",
            'Guard the module\'s own work with `if __name__ == "__main__":`.',
        ) from error
    except Exception as error:
        raise RecipeError(
            f"the function cannot be imported: {type(error).__name__}: {error}",
            f"{key}: {text}",
            "Put its module in the working folder or install it; the form is module:function.",
        ) from error
    if not callable(function):
        raise RecipeError(
            f"{name} is a {type(function).__name__}, not a function", f"{key}: {text}"
        )
    reward_function: Callable[..., Sequence[float]] = function
    return reward_function


@dataclass(frozen=True)
class UserFunction:
    """A function of the user with the arguments that it accepts.

    Attributes:
        name: Its name in the recipe, for errors.
        function: Plain or async function of keyword arguments.
        key: Recipe key, for errors.
        limit: Longest time of a call in seconds; None: no limit.
        accepts: Names of its parameters; None: any name.
        needs: Names of its parameters without a default.
        kind: Noun phrase for it in errors.
        arguments: Names of its arguments that are not columns of the prompts.
    """

    name: str
    function: Callable[..., Any]
    key: str
    limit: float | None
    accepts: frozenset[str] | None
    needs: frozenset[str]
    kind: str = "the reward function"
    arguments: frozenset[str] = ARGUMENTS

    @property
    def may_skip(self) -> bool:
        """True if it may return None for a response, as TRL's reward functions do."""
        return self.key == KEY

    @classmethod
    def of(
        cls,
        name: str,
        function: Callable[..., Any],
        key: str = KEY,
        limit: float | None = None,
        kind: str = "the reward function",
        arguments: frozenset[str] = ARGUMENTS,
    ) -> UserFunction:
        """Read a function's signature; one that Python cannot read accepts any name."""
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return cls(name, function, key, limit, None, frozenset(), kind, arguments)
        if any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            accepts = None
        else:
            accepts = frozenset(p.name for p in parameters if p.kind in _NAMED)
        needs = frozenset(
            p.name for p in parameters if p.kind in _NAMED and p.default is inspect.Parameter.empty
        )
        return cls(name, function, key, limit, accepts, needs, kind, arguments)

    def check(self, columns: Iterable[str], present: Callable[[], Iterable[str]]) -> None:
        """Refuse columns that lack one the function needs.

        Args:
            columns: Names of the columns that it is given.
            present: Returns the names of all columns of the prompts, for the error.

        Raises:
            RecipeError: One is missing.
        """
        missing = sorted(self.needs - set(columns) - self.arguments)
        if missing:
            raise RecipeError(
                f"{self.kind} needs {', '.join(missing)}, which data.prompts does not pass on; "
                f"its columns are {', '.join(present())}",
                f"{self.key}: {self.name}",
                "Add the column to the prompts, or give the parameter a default.",
            )

    def start(self, arguments: dict[str, Any]) -> Callable[[], list[float | None]]:
        """Start a call with those arguments that the function accepts.

        Returns:
            A function that waits for the numbers and returns them, with None only where the function
            may skip. It raises DataError if the
            function fails, tries to end the process, takes longer than its limit, or does not
            return a list of numbers.
        """
        accepts = self.accepts
        accepted = {
            name: value for name, value in arguments.items() if accepts is None or name in accepts
        }
        wait = start_call(self.function, accepted, self.limit)
        return lambda: self._result(wait)

    def _result(self, wait: Callable[[], Any]) -> list[float | None]:
        try:
            return contained(lambda: self._numbers(wait()))
        except RlhfctlError:
            raise
        except CallExitError as error:
            raise DataError(
                f"{self.kind} failed: {error}",
                f"{self.key}: {self.name}",
                "Raise an exception instead, or return the numbers.",
            ) from error
        except CallTimeoutError as error:
            raise DataError(
                f"{self.kind} did not return within {self.limit:g} seconds",
                f"{self.key}: {self.name}",
                "Make it faster, lower ppo.forward_batch_size, or raise timeout_seconds.",
            ) from error
        except Exception as error:
            raise DataError(
                f"{self.kind} failed: {type(error).__name__}: {error}",
                f"{self.key}: {self.name}",
                _READS_MESSAGES if self.key == KEY and _WANTS_MESSAGES in str(error) else _FIX,
            ) from error

    def _numbers(self, values: Any) -> list[float | None]:
        # A generator of the user's runs only now.
        try:
            return [None if value is None and self.may_skip else float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{self.kind} did not return a list of numbers: {error}",
                f"{self.key}: {self.name}",
                "It must return one number per completion.",
            ) from error


class FunctionSource:
    """Reward source: a function or a server."""

    def __init__(
        self,
        name: str,
        function: UserFunction,
        formatter: Formatter,
        rows: PromptRows,
        *,
        messages: bool = False,
    ) -> None:
        """Store the function.

        Args:
            name: Name in metrics.
            function: Function to call.
            formatter: Decodes responses to text.
            rows: Prompts and columns that the rows of a batch are indices of.
            messages: Whether responses to conversations are lists of one message.
        """
        self.messages = messages
        self.name = name
        self.function = function
        self.formatter = formatter
        self.rows = rows

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return the function's scores, [B], without normalization; NaN where it returned None.

        Raises:
            DataError: The function fails, takes too long, or does not return one finite number per
                response.
        """
        return self.start(batch, rows)()

    def start(self, batch: Sequences, rows: Sequence[int]) -> Callable[[], Tensor]:
        """Start the call; the returned function waits for the scores, and raises as `scores`."""
        chosen = self.rows.select(rows)
        ids = batch.response_lists()
        texts = [self.formatter.decode(response) for response in ids]
        wait = self.function.start(
            {
                **chosen.columns,
                "prompts": list(chosen.prompts),
                "completions": [
                    self._completion(prompt, text)
                    for prompt, text in zip(chosen.prompts, texts, strict=True)
                ],
                "completion_ids": ids,
            }
        )
        return lambda: self._checked(wait(), texts)

    def _completion(self, prompt: Any, text: str) -> str | list[dict[str, str]]:
        if self.messages and not isinstance(prompt, str):
            return [{"role": "assistant", "content": text}]
        return text

    def _checked(self, values: Sequence[float | None], texts: Sequence[str]) -> Tensor:
        where = f"{KEY}: {self.function.name}"
        scores = torch.tensor([math.nan if value is None else value for value in values])
        if len(scores) != len(texts):
            raise DataError(
                f"a reward source returned {len(scores)} scores for {len(texts)} responses",
                where,
                "It must return one number for each of its completions.",
            )
        for value, text in zip(values, texts, strict=True):
            if value is not None and not math.isfinite(value):
                raise DataError(
                    "a reward source returned a score that is NaN or infinite",
                    where,
                    f"The response was {text!r}.",
                )
        return scores
