"""Inputs of a reward model from elsewhere: text in its template, by its own tokenizer."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from rlhfctl.errors import CheckpointError, DataError
from rlhfctl.recipe.template_date import with_date

if TYPE_CHECKING:
    from collections.abc import Sequence

Prompt = str | list[dict[str, str]]
_MARK = "\ue000{}\ue001"
"""Stands for a control token's name in a text, in private-use characters."""
_MARKED = re.compile("\ue000(\\d+)\ue001")


class ForeignInputs:
    """Prompts and responses as token ids of another tokenizer.

    Attributes:
        truncated: Inputs so far that were longer than `max_length`.
        encoded: Inputs so far.
    """

    def __init__(
        self, tokenizer: Any, where: str, *, chat: bool, append_eos: bool, max_length: int | None
    ) -> None:
        """Store tokenizer and limits.

        Args:
            tokenizer: Tokenizer of the reward model.
            where: Recipe key and source, for errors.
            chat: Whether inputs are rendered by the chat template.
            append_eos: Whether text ends with EOS; ignored with `chat`.
            max_length: Longest input in tokens; None: no limit.
        """
        self.tokenizer = tokenizer
        self.where = where
        self.chat = chat
        self.append_eos = append_eos
        self.max_length = max_length
        self.truncated = 0
        self.encoded = 0

    def ids(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[list[int]]:
        """Return the ids of each input, with at most one BOS at its start.

        A control token's name within a prompt or a response is text, never the token. Inputs that
        are too long lose tokens after their BOS, since the score is read at the end.

        Raises:
            CheckpointError: A prompt is a conversation, and there is no chat template.
            DataError: The chat template refuses a conversation.
        """
        rows = []
        for prompt, response in zip(prompts, responses, strict=True):
            ids = self._tokenised(self._rendered(prompt, response))
            if not self.chat and self.append_eos and self._needs_eos(ids):
                ids = [*ids, self.tokenizer.eos_token_id]
            rows.append(self._shortened(ids))
        self.encoded += len(rows)
        return rows

    def check(self, prompt: Prompt) -> None:
        """Refuse a conversation where there is no chat template.

        Raises:
            CheckpointError: There is none.
        """
        if not self.chat and not isinstance(prompt, str):
            raise CheckpointError(
                "reads plain text (it has no chat template), and the prompts are conversations",
                self.where,
                "Give its template with chat_template, or name another reward model.",
            )

    def _rendered(self, prompt: Prompt, response: str) -> str:
        """Return the text of an input, with control tokens' names in contents marked."""
        if not self.chat:
            self.check(prompt)
            return self._marked(cast("str", prompt)) + self._marked(response)
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        turns = [*turns, {"role": "assistant", "content": response}]
        turns = [
            {
                key: self._marked(value) if key == "content" and isinstance(value, str) else value
                for key, value in turn.items()
            }
            for turn in turns
        ]
        try:
            template = with_date(self.tokenizer.get_chat_template(), {})
            return cast(
                "str",
                self.tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template),
            )
        except TemplateError as error:
            raise DataError(
                f"the reward model's chat template refuses a conversation: {error}",
                self.where,
                "Fix the rows (some templates take no system turn), or set another chat_template.",
            ) from error

    def _marked(self, text: str) -> str:
        for number, name in enumerate(self._control):
            if name in text:
                text = text.replace(name, _MARK.format(number))
        return text

    def _tokenised(self, text: str) -> list[int]:
        if self._adds_bos:
            text = text.removeprefix(self.tokenizer.bos_token)
        if _MARKED.search(text) is None:
            return cast("list[int]", self.tokenizer(text)["input_ids"])
        # Only such rows are tokenised in parts: elsewhere words may merge across the borders.
        start, end = self._wrapping
        ids: list[int] = []
        for place, part in enumerate(_MARKED.split(text)):
            name = self._control[int(part)] if place % 2 else part
            ids += self.tokenizer(
                name, add_special_tokens=False, split_special_tokens=bool(place % 2)
            )["input_ids"]
        return [*start, *ids, *end]

    def _shortened(self, ids: list[int]) -> list[int]:
        if self.max_length is None or len(ids) <= self.max_length:
            return ids
        self.truncated += 1
        start = ids[: len(self._wrapping[0])] if ids[:1] == self._wrapping[0][:1] else []
        room = self.max_length - len(start)
        return [*start, *ids[len(ids) - room :]] if room > 0 else ids[-self.max_length :]

    def _needs_eos(self, ids: list[int]) -> bool:
        eos = self.tokenizer.eos_token_id
        return eos is not None and not self._wrapping[1] and ids[-1:] != [eos]

    @cached_property
    def _control(self) -> list[str]:
        """Names of the control tokens, longest first."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special}
        return sorted(names | set(self.tokenizer.all_special_tokens), key=lambda n: (-len(n), n))

    @cached_property
    def _wrapping(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer itself puts before and after a text."""
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = list(self.tokenizer("a")["input_ids"])
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        return [], []

    @cached_property
    def _adds_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self._wrapping[0][:1] == [bos]
