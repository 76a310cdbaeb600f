"""Prompts for a language-model judge, and parsing of its verdicts."""

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
    """Reply of an endpoint.

    Attributes:
        text: Text of the reply.
        refused: True for a `refusal` field or a content filter.
    """

    text: str
    refused: bool = False

    def verdict(self) -> Verdict:
        """Return the verdict: alone on the last line, without a different verdict before it.

        Any other reply has no preference: a looser rule could read a verdict from a quoted
        answer.
        """
        if self.refused:
            return "refused"
        lines = self.text.strip().splitlines()
        verdicts = set(_VERDICTS.findall(self.text))
        last = _VERDICTS.fullmatch(lines[-1].strip().strip("*").strip()) if lines else None
        if last and verdicts == {last[1]}:
            return _MEANT[last[1]]
        return "refused" if not verdicts and _REFUSAL.search(self.text) else "unparsable"


def question(section: JudgeEndpointSection, prompt: str, answer_a: str, answer_b: str) -> Messages:
    """Return the messages of one comparison.

    Each text is delimited by tags with a hash of all texts, so no text can contain its own end tag
    and inject instructions.

    Args:
        section: System message and template.
        prompt: Prompt of both answers.
        answer_a: Answer shown first.
        answer_b: Answer shown second.
    """
    texts = {"prompt": prompt, "answer_a": answer_a, "answer_b": answer_b}
    code = hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:12]

    def marked(place: re.Match[str]) -> str:
        return f"<text {code}>\n{texts[place[1]]}\n</text {code}>"

    # One pass, so that a placeholder inside a text is not replaced.
    user = _PLACES.sub(marked, section.template)
    system = [{"role": "system", "content": section.system}] if section.system else []
    return [*system, {"role": "user", "content": user}]
