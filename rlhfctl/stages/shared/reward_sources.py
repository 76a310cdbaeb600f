"""Reward sources of a recipe: reward models, functions and servers."""

from __future__ import annotations

import importlib
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import torch

from rlhfctl.errors import (
    CheckpointError,
    DataError,
    EnvironmentFault,
    RecipeError,
    RlhfctlError,
)
from rlhfctl.ppo.rewards import Rewards, RewardSource
from rlhfctl.recipe.ppo import source_kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from rlhfctl.data.formatter import Formatter
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.models.roles import Roles
    from rlhfctl.recipe.ppo import PPOSection, RewardSourceSection


def extra_reward_models(section: PPOSection) -> list[Path]:
    """Return the folders of the reward models besides the run's, in recipe order.

    Raises:
        CheckpointError: A folder does not exist.
    """
    folders = [
        Path(source.source).expanduser()
        for source in section.reward_sources
        if source_kind(source.source) == "folder"
    ]
    for folder in folders:
        if not folder.is_dir():
            raise CheckpointError(
                "the folder of a reward model does not exist",
                f"ppo.reward_sources: {folder}",
                "Name a folder written by train-rm, `rm`, `module:function`, or an http address.",
            )
    return folders


def open_rewards(
    section: PPOSection, roles: Roles, formatter: Formatter, prompts: Sequence[Any]
) -> Rewards:
    """Open the reward sources of a recipe.

    Args:
        section: Sources with their weights and the rule that combines them.
        roles: Roles whose reward models are the run's, if it is a source, then the others in order.
        formatter: Decodes responses to text.
        prompts: Prompts as in the data, text or messages.

    Raises:
        RecipeError: A function cannot be imported.
    """
    sources: list[RewardSource] = []
    index = int(section.uses_rm)
    for source in section.reward_sources:
        match source_kind(source.source):
            case "rm":
                sources.append(ModelSource("rm", roles, 0))
            case "folder":
                sources.append(ModelSource(Path(source.source).name, roles, index))
                index += 1
            case "function":
                function = import_function(source.source)
                sources.append(FunctionSource(source.source, function, formatter, prompts))
            case "server":
                server = Server(source)
                sources.append(FunctionSource(server.name, server.scores, formatter, prompts))
    return Rewards(
        _with_unique_names(sources),
        [source.weight for source in section.reward_sources],
        section.reward_rule,
        section.uncertainty_penalty,
    )


def _with_unique_names(sources: list[RewardSource]) -> list[RewardSource]:
    names = [source.name for source in sources]
    for index, source in enumerate(sources):
        if names.count(source.name) > 1:
            source.name = f"{source.name}_{index}"
    return sources


_FAULTS = (httpx2.HTTPError, ValueError, KeyError, TypeError)
_log = logging.getLogger("rlhfctl")


class ModelSource:
    """A reward model among the roles."""

    def __init__(self, name: str, roles: Roles, index: int) -> None:
        """Store the roles and the index of the reward model."""
        self.name = name
        self.roles = roles
        self.index = index

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return normalised scores, [B]."""
        return self.roles.scores(batch, self.index)


class FunctionSource:
    """A function of prompts and responses, called as TRL calls its reward functions."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Sequence[float]],
        formatter: Formatter,
        prompts: Sequence[Any],
    ) -> None:
        """Store the function; other arguments are those of `open_rewards`."""
        self.name = name
        self.function = function
        self.formatter = formatter
        self.prompts = prompts

    def scores(self, batch: Sequences, rows: Sequence[int]) -> Tensor:
        """Return the function's scores, [B], without normalization.

        Raises:
            DataError: The function fails, or does not return one finite number per response.
        """
        texts = [self.formatter.decode(ids) for ids in batch.response_lists()]
        values = self._call([self.prompts[row] for row in rows], texts)
        try:
            scores = torch.tensor([float(value) for value in values])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"a reward source did not return a list of numbers: {error}",
                f"ppo.reward_sources: {self.name}",
                "It must return one number for each of its completions.",
            ) from error
        if len(scores) != len(texts):
            raise DataError(
                f"a reward source returned {len(scores)} scores for {len(texts)} responses",
                f"ppo.reward_sources: {self.name}",
                "It must return one number for each of its completions.",
            )
        if not torch.isfinite(scores).all():
            raise DataError(
                "a reward source returned a score that is NaN or infinite",
                f"ppo.reward_sources: {self.name}",
                f"The response was {texts[int((~torch.isfinite(scores)).nonzero()[0])]!r}.",
            )
        return scores

    def _call(self, prompts: list[Any], texts: list[str]) -> Sequence[float]:
        try:
            return self.function(prompts=prompts, completions=texts)
        except RlhfctlError:
            raise
        except Exception as error:
            raise DataError(
                f"a reward source failed: {type(error).__name__}: {error}",
                f"ppo.reward_sources: {self.name}",
                "Fix the function or the server; --debug shows where it failed.",
            ) from error


def import_function(text: str, key: str = "ppo.reward_sources") -> Callable[..., Sequence[float]]:
    """Import `module:function`, from the working folder or the environment.

    Args:
        text: Value in the recipe.
        key: The recipe's key, for errors.

    Raises:
        RecipeError: There is no such module or function, or its import fails.
    """
    module_name, _, name = text.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), name)
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


class Server:
    """A reward server: POST {prompts, completions} gives {scores}, one number per completion."""

    def __init__(self, section: RewardSourceSection) -> None:
        """Store the address, the timeout and the number of attempts."""
        self.url = section.source
        self.name = httpx2.URL(section.source).host
        self.timeout = section.timeout
        self.attempts = section.retries + 1

    def scores(self, prompts: Sequence[Any], completions: Sequence[str]) -> Sequence[float]:
        """Request scores; failures are retried after 1, 2, 4, ... seconds.

        Raises:
            EnvironmentFault: The server is unreachable, fails, or returns no scores.
        """
        payload = {"prompts": list(prompts), "completions": list(completions)}
        for attempt in range(self.attempts - 1):
            try:
                return self._request(payload)
            except _FAULTS as error:
                _log.warning("reward server %s: %s; retrying", self.url, error)
                time.sleep(2.0**attempt)
        try:
            return self._request(payload)
        except _FAULTS as error:
            raise EnvironmentFault(
                f"the reward server failed {self.attempts} times; last error: "
                f"{type(error).__name__}: {error}",
                f"ppo.reward_sources: {self.url}",
                "It must respond to POST {prompts, completions} with {scores}.",
            ) from error

    def _request(self, payload: dict[str, Any]) -> Sequence[float]:
        response = httpx2.post(self.url, json=payload, timeout=self.timeout)
        response.raise_for_status()
        scores: Sequence[float] = response.json()["scores"]
        return scores
