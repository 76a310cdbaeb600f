"""People as judges: pairs shown without saying whose answer is which, and what votes amount to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rlhfctl.data.annotations import Votes
from rlhfctl.evaluation.annotator_quality import examine
from rlhfctl.evaluation.win_rate import win_rate_metrics
from rlhfctl.results.evaluation import JudgeResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Side = Literal["a", "b"]
Choice = Literal["a", "b", "tie"]

_WON: dict[str, float] = {"ppo": 1.0, "tie": 0.5, "opponent": 0.0}
_CLASSES = ("ppo", "opponent", "tie")


@dataclass(frozen=True)
class Answered:
    """A prompt with PPO's answer and its opponent's."""

    prompt: str
    ppo: str
    opponent: str

    @property
    def id(self) -> str:
        """A name that says nothing of whose answer is which.

        It starts with a letter, or a spreadsheet might take it for a number.
        """
        parts = (self.prompt, *sorted((self.ppo, self.opponent)))
        return "p" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class BlindPair:
    """What a voter sees.

    Attributes:
        id: By which the vote is brought back.
        prompt: What was asked.
        response_a: One answer.
        response_b: The other.
        ppo: Which of them is PPO's; kept from the voter.
    """

    id: str
    prompt: str
    response_a: str
    response_b: str
    ppo: Side


@dataclass(frozen=True)
class Vote:
    """One voter's choice between the two answers of a pair."""

    id: str
    annotator: str
    vote: Choice


def blind_pairs(answers: Sequence[Answered], salt: str) -> list[BlindPair]:
    """Return the pairs in drawn order, PPO's answer on a drawn side of each; a pair but once.

    Both are drawn from the salt and the pair alone: a pair keeps its side whatever others come.

    Args:
        answers: The evaluation's.
        salt: What voters must not know, or they could tell the sides.
    """
    distinct = {answer.id: answer for answer in answers}
    drawn = {id_: hashlib.sha256(f"{salt} {id_}".encode()).digest() for id_ in distinct}
    pairs = []
    for id_ in sorted(distinct, key=lambda id_: drawn[id_]):
        answer = distinct[id_]
        side: Side = "a" if drawn[id_][-1] % 2 else "b"
        shown = (answer.ppo, answer.opponent)
        first, second = shown if side == "a" else shown[::-1]
        pairs.append(BlindPair(answer.id, answer.prompt, first, second, side))
    return pairs


def human_metrics(
    answers: Sequence[Answered],
    sides: Mapping[str, Side],
    votes: Sequence[Vote],
    opponent: str,
    seed: int,
) -> JudgeResult:
    """Return the metrics of a judge whose votes are people's, ready for JSON.

    Several voters of one pair count as their mean; `annotators` is what `examine` says of their
    choices between PPO, opponent and tie.

    Args:
        answers: The evaluation's.
        sides: Of each pair's id, the side that PPO's answer was shown on.
        votes: One a voter and pair.
        opponent: Whom PPO was compared with.
        seed: Of the bootstraps.
    """
    chosen: dict[str, list[str]] = {}
    for vote in votes:
        chosen.setdefault(vote.id, []).append(_unblinded(vote, sides))
    outcomes: list[float | None] = [
        float(np.mean([_WON[name] for name in chosen[answer.id]])) if answer.id in chosen else None
        for answer in answers
    ]
    preferences = win_rate_metrics(
        outcomes, [answer.ppo for answer in answers], [answer.opponent for answer in answers], seed
    )
    return JudgeResult(
        kind="humans",
        opponent=opponent,
        preferences=preferences,
        annotators=examine(_labels(votes, sides), seed),
    )


def _unblinded(vote: Vote, sides: Mapping[str, Side]) -> str:
    if vote.vote == "tie":
        return "tie"
    return "ppo" if vote.vote == sides[vote.id] else "opponent"


def _labels(votes: Sequence[Vote], sides: Mapping[str, Side]) -> Votes:
    """Return votes as labels of pairs: PPO, its opponent, or neither."""
    ids = sorted({vote.id for vote in votes})
    names = sorted({vote.annotator for vote in votes})
    return Votes(
        name="votes",
        item=[ids.index(vote.id) for vote in votes],
        annotator=[names.index(vote.annotator) for vote in votes],
        label=[_CLASSES.index(_unblinded(vote, sides)) for vote in votes],
        annotators=names,
        classes=list(_CLASSES),
        cluster=list(range(len(ids))),
    )
