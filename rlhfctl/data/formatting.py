"""Conversion of rows to token ids, identical in SFT, reward modelling, PPO and evaluation."""

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
"""Optional columns of comparisons; `target` and `weight` are aggregated from several labels."""
_BATCH = 256
_PROBE = "rlhfctl"
_TOO_LONG_HINTS = {
    "demonstrations": "raise sft.max_length, or shorten the rows",
    "comparisons": "raise reward_model.max_length, or shorten the rows",
    "prompts": "raise generation.max_prompt_length, or shorten the prompts",
}


@dataclass(frozen=True)
class Formatter:
    """A tokenizer and the rules that convert prompts and responses to its ids.

    Text is tokenised unchanged; a prompt starts with the tokenizer's BOS if it has one. Messages
    are rendered by the chat template. The prompt includes the generation prompt, and the response
    is the text that the template appends for it. Every response ends with exactly one `end_id`.

    Attributes:
        tokenizer: Tokenizer with pad different from EOS, and a chat template for conversations.
    """

    tokenizer: PreTrainedTokenizerBase

    def prompt_ids(self, prompt: Value) -> Ids:
        """Return the ids of a prompt that a response is sampled from.

        Raises:
            RecipeError: The prompt is a conversation and the tokenizer has no chat template.
        """
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[Value]) -> list[Ids]:
        """Return `prompt_ids` of many prompts, tokenised in one batch.

        Raises:
            RecipeError: There is no chat template for a conversation.
        """
        ids = self._tokenised([self._rendered(prompt) for prompt in prompts])
        return [
            row if is_conversation(prompt) else self._bos + row
            for prompt, row in zip(prompts, ids, strict=True)
        ]

    def response_ids(self, prompt: Value, response: Value) -> Ids:
        """Return the ids of a response to a prompt, ending with exactly one `end_id`.

        Args:
            prompt: Text or messages.
            response: Text, or one assistant message if the prompt is messages.

        Raises:
            DataError: The chat template renders the prompt differently once a response follows.
            RecipeError: There is no chat template for a conversation.
        """
        return next(self.pairs([(prompt, response)]))[1]

    def pairs(self, rows: Sequence[tuple[Value, Value]]) -> Iterator[tuple[Ids, Ids]]:
        """Yield `prompt_ids` and `response_ids` of many rows, tokenised in one batch.

        Raises:
            DataError: The chat template renders the prompt differently once a response follows.
            RecipeError: There is no chat template for a conversation.
        """
        starts = [self._rendered(prompt) for prompt, _ in rows]
        wholes = [self._rendered(prompt, response) for prompt, response in rows]
        for start, whole in zip(starts, wholes, strict=True):
            if not whole.startswith(start):
                raise self._not_preserved(start, whole)
        prompts = self.prompts_ids([prompt for prompt, _ in rows])
        full_ids = self._tokenised(wholes)
        suffix_ids = self._tokenised(
            [whole[len(start) :] for start, whole in zip(starts, wholes, strict=True)]
        )
        for (prompt, _), ids, joint, suffix in zip(
            rows, prompts, full_ids, suffix_ids, strict=True
        ):
            plain = ids[1:] if self._bos and not is_conversation(prompt) else ids
            # some tokenizers add a space before a separate text, but not after a prompt
            prompt_is_prefix = joint[: len(plain)] == plain
            end = self.end_id if is_conversation(prompt) else self.eos_id
            yield ids, _ended(joint[len(plain) :] if prompt_is_prefix else suffix, end, self.stops)

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
        """EOS token id.

        Raises:
            DataError: The tokenizer has no EOS token.
        """
        if self.tokenizer.eos_token_id is None:
            raise DataError("the tokenizer has no EOS token", self._name)
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def end_id(self) -> int:
        """Token that ends an assistant turn: the special token after its content, else EOS.

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
        """Stop tokens: EOS and, with a chat template, the end-of-turn token."""
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
        """The BOS token id as a list, empty if the tokenizer adds none."""
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
                "fix the rows (some templates accept no system turn), or name another template",
            ) from error
        return cast("str", text)

    def _not_preserved(self, start: str, whole: str) -> DataError:
        cut = next(
            (place for place, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b),
            min(len(start), len(whole)),
        )
        return DataError(
            f"the chat template of {self._name} renders a prompt differently once a response "
            f"follows it: {start[max(0, cut - 20) : cut + 20]!r} becomes "
            f"{whole[max(0, cut - 20) : cut + 20]!r}, so training and sampling would use different "
            "prompts",
            "model.chat_template",
            "name a template that leaves the prompt unchanged",
        )


def stop_ids(formatter: Formatter) -> set[int]:
    """Return the stop tokens: EOS and the chat template's end-of-turn token."""
    return set(formatter.stops)


def _ended(ids: Ids, end: int, stops: frozenset[int]) -> Ids:
    """Truncate ids before the first stop token and append one `end`."""
    cut = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    return [*ids[:cut], end]


@dataclass(frozen=True)
class Encoded:
    """Tokenised rows and the counts of dropped rows.

    Attributes:
        dataset: Token ids of each usable row.
        report: Rows read, usable and dropped, by cause.
        longest: Length of the longest row before dropping, in tokens.
    """

    dataset: Dataset
    report: RowCounts
    longest: int


def encode_demonstrations(
    rows: Dataset, formatter: Formatter, max_length: int, bad_rows: str = "drop"
) -> Encoded:
    """Encode demonstrations for TRL's SFTTrainer.

    Returns:
        Columns ``input_ids`` (prompt, response and end token) and ``completion_mask`` (1 on the
        response and end token, 0 on the prompt). Rows over `max_length` tokens are dropped.

    Raises:
        DataError: Rows are too long and `bad_rows` is ``refuse``, or no row is left.
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
    """Encode comparisons for TRL's RewardTrainer.

    Returns:
        Columns ``chosen_ids`` and ``rejected_ids`` (prompt, response and end token), and the
        columns of `COMPARISON_EXTRAS` present. Both sides must fit in `max_length` tokens.

    Raises:
        DataError: Rows are too long and `bad_rows` is ``refuse``, or no row is left.
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
    """Encode prompts for sampling.

    Returns:
        Columns ``input_ids`` and ``prompt``, the unchanged prompt. Prompts over `max_length`
        tokens are dropped.

    Raises:
        DataError: Prompts are too long and `bad_rows` is ``refuse``, or no prompt is left.
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
        fitting = []
        for length, row in encoded(rows[start : start + _BATCH]):
            longest = max(longest, length)
            if length > max_length:
                too_long += 1
            else:
                fitting.append(row)
        if fitting:
            report.usable += len(fitting)
            parts.append(Dataset.from_list(fitting))
    if too_long:
        report.dropped[f"longer than {max_length:,} tokens (longest {longest:,})"] = too_long
    report.check(bad_rows, _TOO_LONG_HINTS[name])
    return Encoded(concatenate_datasets(parts), report, longest)
