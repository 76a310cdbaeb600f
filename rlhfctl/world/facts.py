"""Questions about facts in the prompt, both answerable and unanswerable."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.world.lexicon import CITIES, COLOURS, GOODS, LARGEST, NAMES, NUMBERS, THINGS
from rlhfctl.world.question import GENERAL_STATEMENTS, Family, Question, Slots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random


@dataclass(frozen=True)
class Attribute:
    """An attribute of a person that a prompt can state and ask for.

    Attributes:
        kind: Kind of question about the attribute.
        clause: Template of the fact in the prompt, after the person's name.
        questions: Templates of the prompt's question.
        claim: Template of the fact in a response.
        owners: Objects that have the value; empty if the person has it.
        values: Possible values.
    """

    kind: str
    clause: str
    questions: tuple[str, ...]
    claim: str
    owners: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates."""
        return tuple(f"{{name}} {{facts}}. {question}" for question in self.questions)

    def build(self, prompt: str, slots: Slots) -> Question | None:
        """Build the question of these slots; its kind is "unknown" if the facts lack the answer."""
        facts = read_facts(slots["facts"])
        asked, name = slots.get("asked", ""), slots["name"]
        if facts is None or name not in NAMES or (asked and asked not in self.owners):
            return None
        owner, value = facts.get(self.kind, ("", ""))
        answer = (value,) if value and owner == asked else ()
        statement = self.claim.format(name=name, owner=asked, value="{}")
        others = tuple(other for other in self.values if other != value)
        quotable = () if answer or not value else (f"{value} {owner}",)
        kind = self.kind if answer else "unknown"
        sentences = (statement, *GENERAL_STATEMENTS)
        return Question(kind, prompt, answer, self.values, others, sentences, quotable)


ATTRIBUTES = (
    Attribute(
        "where",
        "lives in {value}",
        ("Where does {name} live?", "In which city does {name} live?"),
        "{name} lives in {value}.",
        (),
        CITIES,
    ),
    Attribute(
        "colour",
        "has a {value} {owner}",
        ("What colour is the {asked} of {name}?",),
        "The {owner} is {value}.",
        THINGS,
        COLOURS,
    ),
    Attribute(
        "amount",
        "has {value} {owner}",
        ("How many {asked} does {name} have?",),
        "{name} has {value} {owner}.",
        GOODS,
        NUMBERS[1 : LARGEST + 1],
    ),
)


def draw_facts(rng: Random, kinds: Sequence[str]) -> tuple[str, dict[str, tuple[str, str]]]:
    """Draw facts of these kinds, in random order.

    Returns:
        The text of the facts without the name, and owner and value by kind.
    """
    facts: dict[str, tuple[str, str]] = {}
    clauses = []
    for attribute in rng.sample(ATTRIBUTES, len(ATTRIBUTES)):
        if attribute.kind in kinds:
            owner = rng.choice(attribute.owners) if attribute.owners else ""
            facts[attribute.kind] = (owner, rng.choice(attribute.values))
            clauses.append(attribute.clause.format(owner=owner, value=facts[attribute.kind][1]))
    text = clauses[0] if len(clauses) == 1 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
    return text, facts


def read_facts(text: str) -> dict[str, tuple[str, str]] | None:
    """Parse owner and value of each fact; None if the text contains anything else."""
    facts: dict[str, tuple[str, str]] = {}
    for clause in re.split(r", | and ", text):
        for attribute in ATTRIBUTES:
            pattern = attribute.clause.format(value=r"(?P<value>\w+)", owner=r"(?P<owner>\w+)")
            match = re.fullmatch(pattern, clause)
            if match is None:
                continue
            owner = match["owner"] if attribute.owners else ""
            if match["value"] in attribute.values and owner in (attribute.owners or ("",)):
                break
        else:
            return None
        if attribute.kind in facts:
            return None
        facts[attribute.kind] = (owner, match["value"])
    return facts


def _draw_attribute(rng: Random, attribute: Attribute, answerable: bool) -> Slots:
    others = [other.kind for other in ATTRIBUTES if other is not attribute]
    kinds = rng.sample(others, rng.randint(0 if answerable else 1, 2))
    text, facts = draw_facts(rng, [*kinds, attribute.kind] if answerable else kinds)
    slots = {"name": rng.choice(NAMES), "facts": text}
    if not attribute.owners:
        return slots
    asked = facts[attribute.kind][0] if answerable else rng.choice(attribute.owners)
    return slots | {"asked": asked}


def attribute_family(attribute: Attribute) -> Family:
    """Prompts whose facts include this attribute."""
    return Family(
        attribute.templates, lambda rng: _draw_attribute(rng, attribute, True), attribute.build
    )


def draw_unknown(rng: Random) -> tuple[str, Slots]:
    """A template and slots whose facts do not include the answer."""
    attribute = rng.choice(ATTRIBUTES)
    return rng.choice(attribute.templates), _draw_attribute(rng, attribute, False)
