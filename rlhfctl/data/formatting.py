"""Rows to token ids, the same in every stage: what SFT trains on is what PPO samples after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from rlhfctl.data.row_counts import RowCounts
from rlhfctl.data.rows import Value, is_conversation
from rlhfctl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
Encoder = Callable[[dict[str, list[Any]]], "Iterator[tuple[int, dict[str, Any]]]"]

COMPARISON_EXTRAS = ("margin", "annotator", "source", "target", "weight")
"""What comparisons may have beside their texts; `target` and `weight` come from several labels."""
_BATCH = 256
_PROBE = "rlhfctl"
_TOO_LONG_HINTS = {
    "demonstrations": "raise sft.max_length, or shorten the rows",
    "comparisons": "raise reward_model.max_length, or shorten the rows",
    "prompts": "raise generation.max_prompt_length, or shorten the prompts",
}


@dataclass(frozen=True)
class Formatter:
    """A tokenizer, and the rules by which prompts and responses become its ids.

    Text is tokenised as it is, a prompt with the tokenizer's BOS if it has one. Messages are
    rendered by the tokenizer's chat template: the prompt with the generation prompt, the response
    as what the template adds when the response stands behind it. Every response ends with exactly
    one `end_id`.

    Attributes:
        tokenizer: With pad different from EOS, and a chat template if rows are conversations.
    """

    tokenizer: PreTrainedTokenizerBase

    def prompt_ids(self, prompt: Value) -> Ids:
        """Return the ids after which a response to this prompt is sampled.

        Raises:
            RecipeError: The prompt is a conversation and the tokenizer has no chat template.
        """
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[Value]) -> list[Ids]:
        """Return `prompt_ids` of many prompts, tokenised together.

        Raises:
            RecipeError: There is no chat template for a conversation.
        """
        ids = self._tokenised([self._rendered(prompt) for prompt in prompts])
        return [
            row if is_conversation(prompt) else self._bos + row
            for prompt, row in zip(prompts, ids, strict=True)
        ]

    def response_ids(self, prompt: Value, response: Value) -> Ids:
        """Return a response's ids behind its prompt's, ended by exactly one `end_id`.

        Args:
            prompt: Text, or messages.
            response: Of the same form; of messages, one assistant's turn.

        Raises:
            DataError: The chat template renders the prompt otherwise once a response follows.
            RecipeError: There is no chat template for a conversation.
        """
        return next(self.pairs([(prompt, response)]))[1]

    def pairs(self, rows: Sequence[tuple[Value, Value]]) -> Iterator[tuple[Ids, Ids]]:
        """Yield `prompt_ids` and `response_ids` of many rows, tokenised together.

        Raises:
            DataError: The chat template renders the prompt otherwise once a response follows.
            RecipeError: There is no chat template for a conversation.
        """
        starts = [self._rendered(prompt) for prompt, _ in rows]
        wholes = [self._rendered(prompt, response) for prompt, response in rows]
        for start, whole in zip(starts, wholes, strict=True):
            if not whole.startswith(start):
                raise self._not_preserved(start, whole)
        prompts = self.prompts_ids([prompt for prompt, _ in rows])
        together = self._tokenised(wholes)
        alone = self._tokenised(
            [whole[len(start) :] for start, whole in zip(starts, wholes, strict=True)]
        )
        for (prompt, _), ids, joint, suffix in zip(rows, prompts, together, alone, strict=True):
            plain = ids[1:] if self._bos and not is_conversation(prompt) else ids
            # some tokenizers put a space before a text of its own; behind its prompt there is none
            kept = joint[: len(plain)] == plain
            end = self.end_id if is_conversation(prompt) else self.eos_id
            yield ids, _ended(joint[len(plain) :] if kept else suffix, end, self.stops)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return cast(
            "str",
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
        )

    @cached_property
    def eos_id(self) -> int:
        """The tokenizer's EOS.

        Raises:
            DataError: It has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise DataError("the tokenizer has no EOS token", self._name)
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def end_id(self) -> int:
        """What ends an assistant's turn: the special token behind its content, else EOS.

        Raises:
            RecipeError: There is no chat template.
        """
        question = [{"role": "user", "content": _PROBE}]
        whole = self._rendered(question, [{"role": "assistant", "content": _PROBE}])
        behind = whole[whole.rindex(_PROBE) + len(_PROBE) :].lstrip()
        ids = self._tokenised([behind])[0]
        return ids[0] if ids and ids[0] in self._special else self.eos_id

    @cached_property
    def stops(self) -> frozenset[int]:
        """What may end a response: EOS and, where there is a chat template, the end of a turn."""
        ends = {self.eos_id}
        if self.tokenizer.chat_template is not None:
            ends.add(self.end_id)
        return frozenset(ends)

    @cached_property
    def _special(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder
        marked = {index for index, token in added.items() if token.special}
        return frozenset(marked | set(self.tokenizer.all_special_ids))

    @cached_property
    def _bos(self) -> Ids:
        """What the tokenizer puts before a text: its BOS, or nothing."""
        bos = self.tokenizer.bos_token_id
        first = self.tokenizer(_PROBE)["input_ids"][:1]
        return [bos] if bos is not None and first == [bos] else []

    @property
    def _name(self) -> str:
        return str(self.tokenizer.name_or_path or "tokenizer")

    def _tokenised(self, texts: list[str]) -> list[Ids]:
        encoded = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
        return cast("list[Ids]", encoded["input_ids"])

    def _rendered(self, prompt: Value, response: Value | None = None) -> str:
        if not is_conversation(prompt):
            return prompt + (cast("str", response) if response is not None else "")
        if self.tokenizer.chat_template is None:
            raise RecipeError(
                f"the rows are conversations, but the tokenizer of {self._name} has no chat "
                "template",
                "model.chat_template",
                "name a Jinja file, or use a model that was tuned for conversations",
            )
        turns = prompt if response is None else prompt + cast("list[dict[str, str]]", response)
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=response is None
            )
        except TemplateError as error:
            raise DataError(
                f"the chat template of {self._name} refuses a conversation: {error}",
                "model.chat_template",
                "mend the rows (some templates take no system turn), or name another template",
            ) from error
        return cast("str", text)

    def _not_preserved(self, start: str, whole: str) -> DataError:
        at = next(
            (at for at, (one, two) in enumerate(zip(start, whole, strict=False)) if one != two),
            min(len(start), len(whole)),
        )
        return DataError(
            f"the chat template of {self._name} renders a prompt otherwise once a response "
            f"follows it: {start[max(0, at - 20) : at + 20]!r} becomes "
            f"{whole[max(0, at - 20) : at + 20]!r}, so that a policy would be trained behind one "
            "text and sampled behind another",
            "model.chat_template",
            "name a template that keeps the prompt as it is",
        )


def stop_ids(formatter: Formatter) -> set[int]:
    """Return the tokens that may end a response: EOS and the chat template's end of a turn."""
    return set(formatter.stops)


def _ended(ids: Ids, end: int, stops: frozenset[int]) -> Ids:
    """Cut ids before the first stop token, and end them with one `end`."""
    cut = next((at for at, token in enumerate(ids) if token in stops), len(ids))
    return [*ids[:cut], end]


@dataclass(frozen=True)
class Encoded:
    """Rows as ids, and what became of the rows that were too long.

    Attributes:
        dataset: One row of ids for each row kept.
        report: Rows read, kept, and dropped by cause.
        longest: Length of the longest row before any was dropped, in tokens.
    """

    dataset: Dataset
    report: RowCounts
    longest: int


def encode_demonstrations(
    rows: Dataset, formatter: Formatter, max_length: int, bad_rows: str = "drop"
) -> Encoded:
    """Encode demonstrations as TRL's SFTTrainer takes them.

    Returns:
        Columns ``input_ids``: prompt, response and its end; ``completion_mask``: 1 on the response
        and its end, 0 on the prompt. Rows of more than `max_length` tokens are left out.

    Raises:
        DataError: Rows are too long and `bad_rows` is ``refuse``, or none is left.
        RecipeError: There is no chat template for conversations.
    """

    def encoded(batch: dict[str, list[Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        pairs = list(zip(batch["prompt"], batch["completion"], strict=True))
        for prompt, response in formatter.pairs(pairs):
            mask = [0] * len(prompt) + [1] * len(response)
            yield len(mask), {"input_ids": prompt + response, "completion_mask": mask}

    return _encode(rows, encoded, max_length, bad_rows, "demonstrations")


def encode_comparisons(
    rows: Dataset, formatter: Formatter, max_length: int, bad_rows: str = "drop"
) -> Encoded:
    """Encode comparisons as TRL's RewardTrainer takes them.

    Returns:
        Columns ``chosen_ids`` and ``rejected_ids``: prompt, response and its end; those of
        `COMPARISON_EXTRAS` that the rows have. Both must fit in `max_length` tokens.

    Raises:
        DataError: Rows are too long and `bad_rows` is ``refuse``, or none is left.
        RecipeError: There is no chat template for conversations.
    """
    extras = [name for name in COMPARISON_EXTRAS if name in rows.column_names]

    def encoded(batch: dict[str, list[Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = formatter.pairs(list(zip(batch["prompt"], batch["chosen"], strict=True)))
        rejected = formatter.pairs(list(zip(batch["prompt"], batch["rejected"], strict=True)))
        others = zip(*(batch[name] for name in extras), strict=True)
        for one, two in zip(chosen, rejected, strict=True):
            row: dict[str, Any] = {"chosen_ids": one[0] + one[1], "rejected_ids": two[0] + two[1]}
            length = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            yield length, row | dict(zip(extras, next(others, ()), strict=True))

    return _encode(rows, encoded, max_length, bad_rows, "comparisons")


def encode_prompts(
    rows: Dataset, formatter: Formatter, max_length: int, bad_rows: str = "drop"
) -> Encoded:
    """Encode prompts to sample responses after.

    Returns:
        Columns ``input_ids`` and ``prompt``, the prompt as it was. Prompts of more than
        `max_length` tokens are left out.

    Raises:
        DataError: Prompts are too long and `bad_rows` is ``refuse``, or none is left.
        RecipeError: There is no chat template for conversations.
    """

    def encoded(batch: dict[str, list[Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        ids = formatter.prompts_ids(batch["prompt"])
        for prompt, row in zip(batch["prompt"], ids, strict=True):
            yield len(row), {"input_ids": row, "prompt": prompt}

    return _encode(rows, encoded, max_length, bad_rows, "prompts")


def _encode(rows: Dataset, encoded: Encoder, max_length: int, bad_rows: str, name: str) -> Encoded:
    from datasets import Dataset, concatenate_datasets

    report = RowCounts(name, read=len(rows))
    parts: list[Dataset] = []
    too_long = longest = 0
    for start in range(0, len(rows), _BATCH):
        kept = []
        for length, row in encoded(rows[start : start + _BATCH]):
            longest = max(longest, length)
            if length > max_length:
                too_long += 1
            else:
                kept.append(row)
        if kept:
            report.kept += len(kept)
            parts.append(Dataset.from_list(kept))
    if too_long:
        report.dropped[f"longer than {max_length:,} tokens (longest {longest:,})"] = too_long
    report.check(bad_rows, _TOO_LONG_HINTS[name])
    return Encoded(concatenate_datasets(parts), report, longest)
