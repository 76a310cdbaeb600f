"""Token ids of prompts and responses, identical in SFT, reward modelling, PPO and evaluation."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rlhfctl.data.control_tokens import (
    ControlTokens,
    Ids,
    Marked,
    can_spell,
    encode_marked,
    unused_marks,
)
from rlhfctl.data.message_fields import whole_turns
from rlhfctl.data.reasoning import continued
from rlhfctl.data.rendering import ChatTemplate, RenderingError, lost_text
from rlhfctl.data.rows import Value, is_conversation
from rlhfctl.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from rlhfctl.data.control_tokens import Turn

_PROBE = "rlhfctl"
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and its response.

    Attributes:
        prompt: Ids that a response is sampled after.
        response: Ids of the response, ending with exactly one end token.
        notes: Clauses about the row that people should read.
    """

    prompt: Ids
    response: Ids
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Formatter:
    """A tokenizer and the rules that convert prompts and responses to its ids.

    Text is tokenised unchanged; a prompt starts with the tokenizer's BOS if it has one. Messages
    are rendered by the chat template. The prompt includes the generation prompt, and the response
    is the text that the template appends for it. Every response ends with exactly one `end_id`.
    Content is text: only the template writes control tokens.

    Attributes:
        tokenizer: Tokenizer with a chat template for conversations.
        variables: Variables of the chat template, `model.chat_template_kwargs`.
        parse_special: Whether rows were rendered beforehand, so that control tokens that their
            text spells are meant (`special_tokens: parse`).
    """

    tokenizer: PreTrainedTokenizerBase
    variables: Mapping[str, Any] = field(default_factory=dict)
    parse_special: bool = False

    def prompt_ids(self, prompt: Value) -> Ids:
        """Return the ids of a prompt that a response is sampled from.

        Raises:
            RenderingError: The chat template refuses the prompt.
            RecipeError: The prompt is a conversation and the tokenizer has no chat template.
        """
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[Value]) -> list[Ids]:
        """Return `prompt_ids` of many prompts, tokenised in one batch; raises as it does."""
        return [_raised(row) for row in self.each_prompt(prompts)]

    def each_prompt(self, prompts: Sequence[Value]) -> list[Ids | RenderingError]:
        """Return the ids of each prompt, or why it has none.

        Raises:
            RecipeError: There is no chat template for a conversation.
        """
        starts = [self._attempt(self._prompt, prompt) for prompt in prompts]
        ids = iter(self.tokenised([start for start in starts if isinstance(start, Marked)]))
        return [
            self._begun(prompt, next(ids)) if isinstance(start, Marked) else start
            for prompt, start in zip(prompts, starts, strict=True)
        ]

    def response_ids(self, prompt: Value, response: Value) -> Ids:
        """Return the ids of a response to a prompt, ending with exactly one `end_id`.

        Args:
            prompt: Text or messages.
            response: Text, or one assistant message if the prompt is messages.

        Raises:
            RenderingError: The chat template refuses the row, changes its prompt once a response
                follows, or leaves out its fields.
            RecipeError: There is no chat template for a conversation.
        """
        return next(self.pairs([(prompt, response)]))[1]

    def pairs(self, rows: Sequence[tuple[Value, Value]]) -> Iterator[tuple[Ids, Ids]]:
        """Yield `prompt_ids` and `response_ids` of many rows, tokenised in one batch.

        Raises what `response_ids` raises.
        """
        for pair in self.each_pair(rows):
            encoded = _raised(pair)
            yield encoded.prompt, encoded.response

    def each_pair(self, rows: Sequence[tuple[Value, Value]]) -> list[Pair | RenderingError]:
        """Return the ids of each row, or why it has none.

        Raises:
            RecipeError: There is no chat template for a conversation.
        """
        rendered = [self._attempt(self._row, row) for row in rows]
        usable = [row for row in rendered if isinstance(row, _Row)]
        starts = self.tokenised([row.start for row in usable])
        wholes = self.tokenised([row.whole for row in usable])
        ids = iter(zip(starts, wholes, strict=True))
        return [
            self._pair(row, prompt, *next(ids)) if isinstance(row, _Row) else row
            for row, (prompt, _) in zip(rendered, rows, strict=True)
        ]

    def spelled(self, *values: Value) -> str | None:
        """Return a control token that the values spell, if any."""
        turns = [turn for value in values for turn in _turns(value)]
        return next(self.control.spelled(turns), None)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens."""
        return cast(
            "str",
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            ),
        )

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template with the recipe's variables."""
        return ChatTemplate(self.tokenizer, self.variables)

    @cached_property
    def control(self) -> ControlTokens:
        """Tokens that content must not turn into."""
        history = self.template.source
        if history:
            roles = ("user", "assistant", "user")
            with suppress(RenderingError):
                history = self.template.render(
                    [{"role": role, "content": _PROBE} for role in roles], ask=False
                )
        return ControlTokens.of(self.tokenizer, self.template.source, history)

    @cached_property
    def eos_id(self) -> int:
        """EOS token id.

        Raises:
            DataError: The tokenizer has no EOS token.
        """
        if self.tokenizer.eos_token_id is None:
            raise DataError("the tokenizer has no EOS token", self.template.name)
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def end_id(self) -> int:
        """Token that ends an assistant turn: the special token after its content, else EOS.

        Raises:
            RecipeError: There is no chat template.
        """
        turns = [{"role": role, "content": _PROBE} for role in ("user", "assistant")]
        whole = self.template.render(turns, ask=False)
        if _PROBE not in whole:
            raise RecipeError(
                f"the chat template of {self.template.name} leaves out an answer that is text",
                "model.chat_template",
                "name a template for text; some are for lists of images and texts only",
            )
        behind = whole[whole.rindex(_PROBE) + len(_PROBE) :].lstrip()
        ids = self.tokenised([Marked(behind, "")])[0]
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

    def _attempt(self, render: Callable[[_In], _Out], row: _In) -> _Out | RenderingError:
        try:
            return render(row)
        except RenderingError as error:
            return error

    def _prompt(self, prompt: Value) -> Marked:
        turns, marks = self.marked(_turns(prompt))
        text = self.text(turns, ask=True)
        if is_conversation(prompt):
            self.template.check_tools(turns, text, ask=True)
        return Marked(text, marks)

    def _row(self, row: tuple[Value, Value]) -> _Row:
        prompt, response = row
        turns, marks = self.marked(_turns(prompt) + _turns(response))
        before = turns[: len(_turns(prompt))]
        start, whole = self.text(before, ask=True), self.text(turns, ask=False)
        if not is_conversation(prompt):
            return _Row(Marked(start, marks), Marked(whole, marks), ())
        self.template.check_tools(turns, whole, ask=False)
        notes: list[str] = []
        if whole.startswith(start):
            self.template.check_reasoning(turns, whole)
        else:
            joined = continued(start, whole, turns[-1])
            if joined is None:
                raise self._not_preserved(start, whole)
            whole = joined.whole
            notes += [joined.note] if joined.note else []
        notes += lost_text(_turns(prompt) + _turns(response), Marked(whole, marks).plain)
        return _Row(Marked(start, marks), Marked(whole, marks), tuple(notes))

    def marked(self, turns: list[Turn]) -> tuple[list[Turn], str]:
        """Return the turns with marks around the control tokens that they spell, and the marks.

        Raises:
            RenderingError: They spell one that the vocabulary cannot write as text.
        """
        spelled = set() if self.parse_special else set(self.control.spelled(turns))
        if not spelled:
            return turns, ""
        for token in spelled:
            if not can_spell(self.tokenizer, token):
                raise RenderingError.of(
                    f"with the text {token!r}, which the vocabulary has only as a control token",
                    f"the tokenizer of {self.template.name} cannot write {token!r} as text",
                    "leave such rows out",
                )
        marks = unused_marks(turns)
        return self.control.marked(turns, marks), marks

    def text(self, turns: list[Turn], *, ask: bool) -> str:
        """Return the rendering of a conversation, or a plain text; raises as `ChatTemplate.render`."""
        if not is_plain(turns):
            return self.template.render(turns, ask=ask)
        return "".join(turn["content"] for turn in turns)

    def tokenised(self, texts: Sequence[Marked]) -> list[Ids]:
        """Return the ids of texts, without BOS, tokenised in one batch; equal texts once."""
        plain = list(dict.fromkeys(text.text for text in texts if not text.marks))
        ids = self._ids(plain) if plain else []
        encoded: dict[str, Ids] = dict(zip(plain, ids, strict=True))
        return [
            encode_marked(self.tokenizer, text) if text.marks else encoded[text.text]
            for text in texts
        ]

    def _ids(self, texts: list[str]) -> list[Ids]:
        # verbose: a warning about long rows, which are counted and dropped
        encoded = self.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        return cast("list[Ids]", encoded["input_ids"])

    def _begun(self, prompt: Value, ids: Ids) -> Ids:
        """Return the ids of a prompt with exactly one BOS, if it begins with one."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        begun = ids if is_conversation(prompt) or ids[:1] == [bos] else self._bos + ids
        while begun[:2] == [bos, bos]:
            begun = begun[1:]
        return begun

    def _pair(self, row: _Row, prompt: Value, start: Ids, whole: Ids) -> Pair:
        # Some tokenizers add a space before a separate text, but not after a prompt.
        joint = whole[len(start) :] if whole[: len(start)] == start else None
        plain = not (self.parse_special or is_conversation(prompt))
        if joint is None or (plain and self.stops.intersection(joint)):
            # The response alone: its first token would join to the prompt's last, or prompt and
            # response spell a stop token together.
            (joint,) = self.tokenised([row.suffix])
        end = self.end_id if is_conversation(prompt) else self.eos_id
        if self.parse_special and not is_conversation(prompt):
            # A text that was rendered beforehand has its own end.
            end = next((token for token in joint if token in self.stops), end)
        return Pair(self._begun(prompt, start), _ended(joint, end, self.stops), row.notes)

    def _not_preserved(self, start: str, whole: str) -> RenderingError:
        cut = next(
            (place for place, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b),
            min(len(start), len(whole)),
        )
        return RenderingError.of(
            "whose prompt the chat template renders differently once a response follows",
            f"the chat template of {self.template.name} renders a prompt differently once a "
            f"response follows it: {start[max(0, cut - 20) : cut + 20]!r} becomes "
            f"{whole[max(0, cut - 20) : cut + 20]!r}, so training and sampling would use different "
            "prompts",
            "name a template that leaves the prompt unchanged",
        )


@dataclass(frozen=True)
class _Row:
    """A rendered prompt, and the same with its response."""

    start: Marked
    whole: Marked
    notes: tuple[str, ...]

    @property
    def suffix(self) -> Marked:
        return Marked(self.whole.text[len(self.start.text) :], self.whole.marks)


def is_plain(turns: Sequence[Turn]) -> bool:
    """Return whether turns are parts of a plain text."""
    return not any("role" in turn for turn in turns)


def _turns(value: Value) -> list[Turn]:
    return whole_turns(value) if is_conversation(value) else [{"content": value}]


def _raised(result: _Out | RenderingError) -> _Out:
    if isinstance(result, RenderingError):
        raise result
    return result


def stop_ids(formatter: Formatter, names: Sequence[str] = ()) -> set[int]:
    """Return the stop tokens: EOS, the chat template's end-of-turn token, and those of a recipe.

    Args:
        formatter: Tokenizer and chat template.
        names: `generation.stop_tokens`.

    Raises:
        RecipeError: One of the names is not in the vocabulary.
    """
    vocabulary = formatter.tokenizer.get_vocab()
    unknown = [name for name in names if name not in vocabulary]
    if unknown:
        raise RecipeError(
            f"{', '.join(map(repr, unknown))} are not tokens of {formatter.template.name}",
            "generation.stop_tokens",
            "Each must be a single token of the vocabulary.",
        )
    return set(formatter.stops) | {vocabulary[name] for name in names}


def _ended(ids: Ids, end: int, stops: frozenset[int]) -> Ids:
    """Truncate ids before the first stop token and append one `end`."""
    cut = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    return [*ids[:cut], end]
