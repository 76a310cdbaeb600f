"""Encoding of content as text: only a chat template writes control tokens.

A row's text may spell a control token, such as ``</s>`` or ``<|im_end|>``. Encoded as usual, it
would end the response or close the turn. Such spellings are marked before the template renders the
row, and encoded afterwards as the characters they are. transformers' `sanitize_control_tokens`
(5.21) does the same for one conversation at a time; this also serves plain text and any role.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Ids = list[int]
Turn = dict[str, Any]
"""A message with all of its fields; plain text is a turn without a role."""
_PRIVATE_USE = range(0xF0000, 0xFFFFD, 2)


class Marked(NamedTuple):
    """A text whose spelled control tokens are between two characters that occur nowhere else.

    Attributes:
        text: The text, with marks.
        marks: The two characters; empty if nothing is marked.
    """

    text: str
    marks: str

    @property
    def plain(self) -> str:
        """The text without marks."""
        return _without(self.text, self.marks)


@dataclass(frozen=True)
class ControlTokens:
    """Tokens that text must not turn into.

    Attributes:
        always: Special tokens, and others that begin or end turns.
        outside: Those and further ones that the chat template writes, such as
            ``<tool_response>``, which an assistant may write itself.
    """

    always: frozenset[str]
    outside: frozenset[str]

    @classmethod
    def of(cls, tokenizer: Any, template: str, history: str) -> ControlTokens:
        """Return the control tokens of a tokenizer.

        Args:
            tokenizer: Tokenizer of transformers.
            template: Source of its chat template; empty if there is none.
            history: A question, an answer and a question as rendered by it.
        """
        added = [t for t in tokenizer.added_tokens_decoder.values() if not t.content.isspace()]
        always = frozenset(t.content for t in added if t.special or t.content in history)
        outside = frozenset(t.content for t in added if t.content in template)
        return cls(always, always | outside)

    def spelled(self, turns: Sequence[Turn]) -> Iterator[str]:
        """Yield the control tokens that the turns spell, in their order."""
        for turn in turns:
            pattern = self._of(turn)
            for text in _strings(_content(turn)):
                for match in pattern.finditer(text):
                    yield match[0]

    def marked(self, turns: Sequence[Turn], marks: str) -> list[Turn]:
        """Return the turns with `marks` around each control token that they spell."""

        def mark(value: Any, pattern: re.Pattern[str]) -> Any:
            if isinstance(value, str):
                return pattern.sub(lambda match: f"{marks[0]}{match[0]}{marks[1]}", value)
            if isinstance(value, dict):
                return {key: mark(inner, pattern) for key, inner in value.items()}
            if isinstance(value, list):
                return [mark(inner, pattern) for inner in value]
            return value

        return [
            {name: turn[name] for name in turn if name == "role"}
            | mark(_content(turn), self._of(turn))
            for turn in turns
        ]

    def _of(self, turn: Turn) -> re.Pattern[str]:
        # A plain text has no role.
        return _any_of(
            self.always if turn.get("role", "assistant") == "assistant" else self.outside
        )


def unused_marks(turns: Sequence[Turn]) -> str:
    """Return two private-use characters that occur in none of the turns."""
    used = set().union(*(text for turn in turns for text in _strings(_content(turn))))
    return next(
        chr(code) + chr(code + 1)
        for code in _PRIVATE_USE
        if chr(code) not in used and chr(code + 1) not in used
    )


def encode_marked(tokenizer: Any, marked: Marked) -> Ids:
    """Encode a marked text: what is marked as text, the rest as usual.

    Marks that a template has separated from their token are dropped; the text on both sides is
    encoded apart, so that it cannot join to a control token.

    Args:
        tokenizer: Tokenizer of transformers.
        marked: Text whose marked tokens pass `can_spell`.
    """
    start, end = marked.marks[0], marked.marks[1]
    tokens = _alternatives(tokenizer.added_tokens_encoder)
    pieces = re.split(f"{start}({tokens}){end}?|[{start}{end}]", marked.text)
    ids: Ids = tokenizer.encode(pieces[0], add_special_tokens=False)
    for number, piece in enumerate(pieces[1:], start=1):
        if piece:
            ids += _as_text(tokenizer, piece) if number % 2 else _inside(tokenizer, piece, _encode)
    return ids


def _as_text(tokenizer: Any, piece: str) -> Ids:
    """Return the ids of a control token's spelling, without the control token."""
    control = tokenizer.convert_tokens_to_ids(piece)
    ids = _inside(tokenizer, piece, _encode_without_added)
    if control in ids:
        # The vocabulary lists it among ordinary pieces, as unigram models do.
        ids = [id_ for letter in piece for id_ in _inside(tokenizer, letter, _encode_without_added)]
    return ids


def can_spell(tokenizer: Any, token: str) -> bool:
    """Return whether the vocabulary can write a control token as text."""
    return tokenizer.convert_tokens_to_ids(token) not in _as_text(tokenizer, token)


def _inside(tokenizer: Any, piece: str, encode: Callable[[Any, str], Ids]) -> Ids:
    """Encode a piece from inside a text: SentencePiece would begin a separate one with a space."""
    newline = _encode(tokenizer, "\n")
    ids = encode(tokenizer, "\n" + piece)
    return ids[len(newline) :] if ids[: len(newline)] == newline else encode(tokenizer, piece)


def _encode(tokenizer: Any, text: str) -> Ids:
    return cast("Ids", tokenizer.encode(text, add_special_tokens=False))


def _encode_without_added(tokenizer: Any, text: str) -> Ids:
    """Encode without any added token; `split_special_tokens` leaves out the special ones only."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return cast(
            "Ids", tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )
    if core.normalizer is not None:
        text = core.normalizer.normalize_str(text)
    words = [text]
    if core.pre_tokenizer is not None:
        words = [word for word, _ in core.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for word in words for token in core.model.tokenize(word)]


def _without(text: str, marks: str) -> str:
    return text.translate(dict.fromkeys(map(ord, marks))) if marks else text


def _content(turn: Turn) -> Turn:
    """Return a turn without its role, which is not the row's to choose."""
    return {name: value for name, value in turn.items() if name != "role"}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


@cache
def _any_of(tokens: frozenset[str]) -> re.Pattern[str]:
    return re.compile(_alternatives(tokens))


def _alternatives(tokens: Iterable[str]) -> str:
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or "(?!)"
