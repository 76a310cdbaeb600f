"""Everyday questions whose answer can be decided from the prompt alone.

Each kind is a `Family`: prompt templates, a way to draw their slots, and a builder that turns the
slots into a `Question`. Sampling and parsing share the builder, so parsing the text of a prompt
returns the same question that was sampled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from rlhfctl.world.facts import ATTRIBUTES, attribute_family, draw_unknown
from rlhfctl.world.lexicon import (
    DAYS,
    GOODS,
    LARGEST,
    LIST_WORDS,
    MONTHS,
    NAMES,
    NUMBERS,
    OPPOSITES,
)
from rlhfctl.world.question import GENERAL_STATEMENTS, Family, Question, Slots

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


def _close_numbers(number: int) -> tuple[str, ...]:
    near = (number + step for step in (-3, -2, -1, 1, 2, 3))
    return tuple(str(value) for value in near if 0 <= value <= LARGEST)


def _number_question(
    kind: str, prompt: str, number: int, statements: tuple[str, ...], quotable: tuple[str, ...] = ()
) -> Question:
    sentences = (*statements, *GENERAL_STATEMENTS)
    return Question(
        kind, prompt, (str(number),), NUMBERS, _close_numbers(number), sentences, quotable
    )


def _draw_sum(rng: Random) -> Slots:
    total = rng.randint(0, LARGEST)
    first = rng.randint(0, total)
    return {"a": str(first), "b": str(total - first)}


def _draw_difference(rng: Random) -> Slots:
    first = rng.randint(0, LARGEST)
    return {"a": str(first), "b": str(rng.randint(0, first))}


def _build_sum(prompt: str, slots: Slots) -> Question:
    a, b = slots["a"], slots["b"]
    quotable = (f"{a} plus {b}", f"{a} and {b}")
    return _number_question("sum", prompt, int(a) + int(b), (f"{a} plus {b} is {{}}.",), quotable)


def _build_difference(prompt: str, slots: Slots) -> Question | None:
    a, b = slots["a"], slots["b"]
    if int(b) > int(a):
        return None
    quotable = (f"{a} minus {b}", f"{b} away from {a}")
    statements = (f"{a} minus {b} is {{}}.",)
    return _number_question("difference", prompt, int(a) - int(b), statements, quotable)


def _draw_gain(rng: Random) -> Slots:
    numbers = {"a": str(rng.randint(1, 10)), "b": str(rng.randint(1, 10))}
    act = rng.choice(("buys", "finds"))
    return numbers | {"name": rng.choice(NAMES), "goods": rng.choice(GOODS), "act": act}


def _draw_loss(rng: Random) -> Slots:
    first = rng.randint(2, 12)
    numbers = {"a": str(first), "b": str(rng.randint(1, first))}
    act = rng.choice(("sells", "loses"))
    return numbers | {"name": rng.choice(NAMES), "goods": rng.choice(GOODS), "act": act}


def _build_holding(kind: str, sign: int) -> Callable[[str, Slots], Question | None]:
    def build(prompt: str, slots: Slots) -> Question | None:
        number = int(slots["a"]) + sign * int(slots["b"])
        statements = (
            f"{slots['name']} has {{}} {slots['goods']} now.",
            f"{slots['name']} has {{}} {slots['goods']}.",
        )
        if not 0 <= number <= LARGEST:
            return None
        return _number_question(kind, prompt, number, statements)

    return build


def _draw_compare(rng: Random) -> Slots:
    x, y = rng.sample(NUMBERS[: LARGEST + 1], 2)
    return {"a": x, "b": y, "word": rng.choice(("larger", "smaller"))}


def _build_compare(prompt: str, slots: Slots) -> Question | None:
    low, high = sorted((slots["a"], slots["b"]), key=int)
    word = slots["word"]
    if word not in ("larger", "smaller") or low == high:
        return None
    right, wrong = (high, low) if word == "larger" else (low, high)
    statements = (f"The {word} one is {{}}.", f"{{}} is {word}.", *GENERAL_STATEMENTS)
    return Question("compare", prompt, (right,), NUMBERS, (wrong,), statements, (f"than {wrong}",))


def _draw_items(words: tuple[str, ...], low: int, high: int) -> Callable[[Random], Slots]:
    def draw(rng: Random) -> Slots:
        return {"items": ", ".join(rng.sample(words, rng.randint(low, high)))}

    return draw


def _build_order(prompt: str, slots: Slots) -> Question | None:
    items = slots["items"].split(", ")
    if not set(items) <= set(NUMBERS):
        return None
    answer = tuple(sorted(items, key=int))
    statements = ("The right order is {}.", "The order is {}.", "{}.")
    return Question("order", prompt, answer, NUMBERS, tuple(items), statements)


def _build_repeat(prompt: str, slots: Slots) -> Question:
    items = tuple(slots["items"].split(", "))
    statements = ("The words are {}.", "Here they are: {}.", "{}.")
    return Question("repeat", prompt, items, LIST_WORDS, LIST_WORDS, statements)


def _build_count(prompt: str, slots: Slots) -> Question:
    number = len(slots["items"].split(", "))
    statements = ("There are {} words.", "The list has {} words.")
    question = _number_question("count", prompt, number, statements)
    wrong = tuple(str(value) for value in range(2, 7) if value != number)
    return Question(
        "count", prompt, question.answer, NUMBERS, wrong, question.statements, question.quotable
    )


def _draw_pick(rng: Random) -> Slots:
    return _draw_items(LIST_WORDS, 2, 4)(rng) | {"end": rng.choice(("first", "last"))}


def _build_pick(prompt: str, slots: Slots) -> Question | None:
    items = slots["items"].split(", ")
    end = slots["end"]
    right = items[0] if end == "first" else items[-1]
    wrong = tuple(item for item in items if item != right)
    if not wrong:
        return None
    statements = (f"The {end} word is {{}}.", *GENERAL_STATEMENTS)
    return Question("pick", prompt, (right,), LIST_WORDS, wrong, statements)


def _draw_calendar(rng: Random) -> Slots:
    unit, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    return {"unit": unit, "side": rng.choice(("after", "before")), "date": rng.choice(names)}


def _build_calendar(prompt: str, slots: Slots) -> Question | None:
    unit, side, date = slots["unit"], slots["side"], slots["date"]
    names = DAYS if unit == "day" else MONTHS
    if date not in names:
        return None
    place = names.index(date)
    right = names[(place + (1 if side == "after" else -1)) % len(names)]
    wrong = tuple(name for name in names if name != right)
    statements = (f"{{}} comes {side} {date}.", f"The {unit} {side} {date} is {{}}.")
    quotable = (f"{side} {date}",)
    sentences = (*statements, *GENERAL_STATEMENTS)
    return Question("calendar", prompt, (right,), names, wrong, sentences, quotable)


ADJECTIVES = tuple(word for pair in OPPOSITES for word in pair)
OPPOSITE_OF = dict(OPPOSITES) | {second: first for first, second in OPPOSITES}


def _draw_opposite(rng: Random) -> Slots:
    return {"adjective": rng.choice(ADJECTIVES)}


def _build_opposite(prompt: str, slots: Slots) -> Question | None:
    word = slots["adjective"]
    if word not in OPPOSITE_OF:
        return None
    right = OPPOSITE_OF[word]
    wrong = tuple(other for other in ADJECTIVES if other not in (word, right))
    statements = (f"The opposite of {word} is {{}}.", *GENERAL_STATEMENTS)
    return Question("opposite", prompt, (right,), ADJECTIVES, wrong, statements, (f"of {word}",))


FAMILIES: dict[str, Family] = {
    "sum": Family(
        ("What is {a} plus {b}?", "How much is {a} plus {b}?", "Please add {a} and {b}."),
        _draw_sum,
        _build_sum,
    ),
    "difference": Family(
        ("What is {a} minus {b}?", "How much is {a} minus {b}?", "Please take {b} away from {a}."),
        _draw_difference,
        _build_difference,
    ),
    "gain": Family(
        ("{name} has {a} {goods} and {act} {b} more. How many {goods} does {name} have now?",),
        _draw_gain,
        _build_holding("gain", 1),
    ),
    "loss": Family(
        ("{name} has {a} {goods} and {act} {b} of them. How many {goods} does {name} have now?",),
        _draw_loss,
        _build_holding("loss", -1),
    ),
    **{attribute.kind: attribute_family(attribute) for attribute in ATTRIBUTES},
    "compare": Family(
        ("Which is {word}, {a} or {b}?", "Which number is {word}, {a} or {b}?"),
        _draw_compare,
        _build_compare,
    ),
    "order": Family(
        (
            "Put these numbers in order, smallest first: {items}.",
            "Please sort these numbers, smallest first: {items}.",
        ),
        _draw_items(NUMBERS[: LARGEST + 1], 3, 3),
        _build_order,
    ),
    "repeat": Family(
        ("Repeat these words: {items}.", "Please say these words again: {items}."),
        _draw_items(LIST_WORDS, 2, 4),
        _build_repeat,
    ),
    "count": Family(
        ("How many words are in this list: {items}?", "Please count these words: {items}."),
        _draw_items(LIST_WORDS, 2, 5),
        _build_count,
    ),
    "pick": Family(
        ("What is the {end} word in this list: {items}?", "Which word comes {end} here: {items}?"),
        _draw_pick,
        _build_pick,
    ),
    "calendar": Family(
        ("Which {unit} comes {side} {date}?", "What is the {unit} {side} {date}?"),
        _draw_calendar,
        _build_calendar,
    ),
    "opposite": Family(
        ("What is the opposite of {adjective}?", "Please tell me the opposite of {adjective}."),
        _draw_opposite,
        _build_opposite,
    ),
}
KINDS = (*FAMILIES, "unknown")
# These kinds have few distinct prompts, so they are sampled less often.
RARE = {"calendar": 0.5, "opposite": 0.5}

_SLOT_PATTERNS = {
    "a": r"\d{1,2}",
    "b": r"\d{1,2}",
    "facts": r"[^.?]+",
    "items": r"\w+(?:, \w+)*",
    "unit": r"day|month",
    "side": r"after|before",
    "end": r"first|last",
}


def _template_pattern(template: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        slot = match[1]
        if slot in seen:
            return f"(?P={slot})"
        seen.add(slot)
        return f"(?P<{slot}>{_SLOT_PATTERNS.get(slot, r'[A-Za-z]+')})"

    literal = re.sub(r"[.?]", lambda match: "\\" + match[0], template)
    return re.compile(re.sub(r"\{(\w+)\}", group, literal))


_PATTERNS = tuple(
    (_template_pattern(template), family)
    for family in FAMILIES.values()
    for template in family.templates
)


def sample_question(rng: Random, kind: str | None = None) -> Question:
    """Draw a question.

    Args:
        rng: Random number generator; its state determines the result.
        kind: One of `KINDS`; None samples the kind too.

    Raises:
        KeyError: `kind` is not one of `KINDS`.
    """
    if kind is None:
        kind = rng.choices(KINDS, [RARE.get(name, 1.0) for name in KINDS])[0]
    if kind == "unknown":
        template, slots = draw_unknown(rng)
    else:
        template, slots = rng.choice(FAMILIES[kind].templates), FAMILIES[kind].draw(rng)
    prompt = template.format(**slots)
    question = parse_question(prompt)
    if question is None:
        raise AssertionError(f"the world cannot parse its own prompt: {prompt}")
    return question


@lru_cache(maxsize=2**14)  # a prompt is read again for each of its responses
def parse_question(prompt: str) -> Question | None:
    """Parse the text of a prompt; return None if it is not one of this world's prompts."""
    prompt = " ".join(prompt.split())
    for pattern, family in _PATTERNS:
        match = pattern.fullmatch(prompt)
        if match is not None:
            question = family.build(prompt, match.groupdict())
            if question is not None:
                return question
    return None
