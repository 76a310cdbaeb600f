"""A conversation with one model of a run, turn by turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlhfctl.errors import UsageError

if TYPE_CHECKING:
    from rlhfctl.sampling.settings import Response, SamplingSettings
    from rlhfctl.sampling.stage_models import StageModels


class Conversation:
    """Turns so far, and the model that answers the next one.

    Args:
        models: Models of the run.
        stage: The one that answers.
        settings: Settings of generation; each turn has random numbers of its own.
        system: System turn; None for none.
    """

    def __init__(
        self,
        models: StageModels,
        stage: str,
        settings: SamplingSettings,
        system: str | None = None,
    ) -> None:
        if models.context.tokenizer.chat_template is None:
            raise UsageError(
                "the tokenizer has no chat template, so turns cannot be told apart",
                models.context.recipe.model.name_or_path,
                "use rlhfctl sample, or a run with model.chat_template",
            )
        self.models, self.stage, self.settings = models, stage, settings
        self._start = [{"role": "system", "content": system}] if system else []
        self.turns = list(self._start)
        self._answered = 0

    def reset(self) -> None:
        """Forget all turns but the system turn."""
        self.turns = list(self._start)

    def say(self, text: str) -> Response:
        """Return the model's answer to a turn of the user, and remember both.

        Raises:
            RenderingError: The chat template refuses the conversation.
            UsageError: The conversation is longer than the model takes; it is as before.
        """
        turns = [*self.turns, {"role": "user", "content": text}]
        ids = self.models.context.formatter.prompt_ids(turns)
        limit = self.models.longest_input
        if limit is not None and len(ids) + self.settings.max_new_tokens > limit:
            raise UsageError(
                f"the conversation has {len(ids):,} tokens, and with {self.settings.max_new_tokens} "
                f"more it exceeds the {limit:,} that the model takes",
                hint="/reset starts a new conversation",
            )
        settings = replace(self.settings, seed=self.settings.seed + self._answered)
        response = self.models.respond(self.stage, [ids], settings)[0]
        self._answered += 1
        self.turns = [*turns, {"role": "assistant", "content": response.text}]
        return response
