"""Detection of hedging and certainty in English responses.

The lists are a subset of the hedges and boosters of Hyland (2005, "Metadiscourse", appendix) that
nearly always qualify a claim: "may", "about" and "must" have too many other uses, "of course" and
a bare "sure" mostly open a polite reply. Matching ignores quotation and irony, so shares are for
comparing policies, not for judging single responses.
"""

from __future__ import annotations

import re

_DEGREE = r"(?:so|too|very|really|quite|fully|entirely|completely|totally|absolutely|perfectly)"

# Patterns for lower-case words separated by one space; "don't" becomes "don t".
HEDGES = (
    r"i (?:do not |don t )?(?:think|guess|suppose|suspect|assume|believe)",
    r"perhaps|maybe|possibly|probably|presumably|apparently|arguably|seemingly",
    r"(?:un)?likely|unsure|uncertain",
    r"(?:pretty|fairly|reasonably|almost|nearly) (?:sure|certain)",
    r"(?:it|there|this|that) (?:may|might|could) be",
    r"it (?:seems|appears)|hard to say|as far as i (?:know|can tell)",
    r"i (?:could|may|might) be (?:wrong|mistaken)|if i (?:remember|recall)|i doubt",
)
CERTAINTIES = (
    r"certainly|definitely|surely|clearly|obviously|absolutely|undoubtedly|undeniably",
    r"unquestionably|indisputably|assuredly",
    r"no doubt|without doubt|beyond doubt|no question",
    r"(?:without|beyond) (?:a|any|all) (?:\w+ )?doubt",
    rf"(?:am|m|are|re|is|s|feel) (?:{_DEGREE} )?(?:sure|certain)",
    rf"(?:can|may) be (?:{_DEGREE} )?(?:sure|certain)",
    r"for (?:sure|certain)|guaranteed?|it is a fact|i promise",
)
_DENIED = (
    r"(?:not|never|no|nobody|cannot|hardly|neither|[a-z]+n t)"
    rf"(?: (?:be|been|feel|say|tell|know|knows|is|at|all|for|a|that|{_DEGREE})){{0,3}}"
    rf" (?:sure|certain|certainly|definitely|clearly|guaranteed?|{_DEGREE} (?:sure|certain))"
)

_DENIED_PATTERN = re.compile(rf"\b{_DENIED}\b")
_HEDGE_PATTERN = re.compile(rf"\b(?:{'|'.join((*HEDGES, _DENIED))})\b")
_CERTAINTY_PATTERN = re.compile(rf"\b(?:{'|'.join(CERTAINTIES)})\b")


def hedging(text: str) -> bool:
    """Return True if a response hedges; a negated certainty ("I am not sure") counts."""
    return any(_HEDGE_PATTERN.search(sentence) for sentence in _sentences(text))


def certainty(text: str) -> bool:
    """Return True if a response asserts certainty; negations ("not sure") do not count.

    A response can contain both markers: "I think so. In fact, I am sure."
    """
    return any(
        _CERTAINTY_PATTERN.search(_DENIED_PATTERN.sub(" | ", sentence))
        for sentence in _sentences(text)
    )


def _sentences(text: str) -> list[str]:
    """Return each sentence's words in lower case, separated by one space, without punctuation."""
    return [
        " ".join(re.findall(r"[^\W_]+", part)) for part in re.split(r"[.!?;\n]+", text.casefold())
    ]
