"""How a language model is asked to compare two answers, and how its reply is read."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rlhfctl.recipe.judges import JudgeEndpointSection

Messages = list[dict[str, str]]
Verdict = Literal["a", "b", "tie", "refused", "unparsable"]

_PLACES = re.compile(r"\{(prompt|answer_a|answer_b)\}")
_VERDICTS = re.compile(r"\[\[\s*([A-C])\s*\]\]")
_MEANT: dict[str, Verdict] = {"A": "a", "B": "b", "C": "tie"}
_REFUSAL = re.compile(
    r"\b(?:I(?:['\N{RIGHT SINGLE QUOTATION MARK}]m| am) (?:sorry|unable|not able)"
    r"|I (?:cannot|can['\N{RIGHT SINGLE QUOTATION MARK}]t|won['\N{RIGHT SINGLE QUOTATION MARK}]t"
    r"|must decline|will not)|as an AI)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reply:
    """What an endpoint said.

    Attributes:
        text: Its words.
        refused: Whether it said so itself: a `refusal`, or a content filter.
    """

    text: str
    refused: bool = False

    def verdict(self) -> Verdict:
        """Read the verdict: the last line holds it alone, and no other verdict stands before it.

        Whatever else is in a reply, it is no preference: guessing what was meant would let an
        answer that is quoted in the reply decide.
        """
        if self.refused:
            return "refused"
        lines = self.text.strip().splitlines()
        found = set(_VERDICTS.findall(self.text))
        last = _VERDICTS.fullmatch(lines[-1].strip().strip("*").strip()) if lines else None
        if last and found == {last[1]}:
            return _MEANT[last[1]]
        return "refused" if not found and _REFUSAL.search(self.text) else "unparsable"


def question(section: JudgeEndpointSection, prompt: str, answer_a: str, answer_b: str) -> Messages:
    """Return the messages of one question.

    Each text stands between marks that carry a code made of the texts themselves, so that no text
    can hold its own end mark and go on as if it were the question.

    Args:
        section: Has the system message and the template.
        prompt: What was asked of both.
        answer_a: Shown first.
        answer_b: Shown second.
    """
    texts = {"prompt": prompt, "answer_a": answer_a, "answer_b": answer_b}
    code = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:12]

    def marked(place: re.Match[str]) -> str:
        return f"<text {code}>\n{texts[place[1]]}\n</text {code}>"

    # In one pass: a text that holds "{answer_b}" itself is left as it is.
    user = _PLACES.sub(marked, section.template)
    system = [{"role": "system", "content": section.system}] if section.system else []
    return [*system, {"role": "user", "content": user}]
