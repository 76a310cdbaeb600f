"""Human judges: blinded pairs and metrics of their votes."""

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
        """Identifier that does not reveal which answer is PPO's.

        It starts with a letter so that spreadsheets do not parse it as a number.
        """
        parts = (self.prompt, *sorted((self.ppo, self.opponent)))
        return "p" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class BlindPair:
    """A pair as shown to a voter.

    Attributes:
        id: Identifier that links the vote to the pair.
        prompt: The prompt.
        response_a: First answer.
        response_b: Second answer.
        ppo: Side of PPO's answer; hidden from the voter.
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
    """Return the distinct pairs in random order, with PPO's answer on a random side.

    Both depend on the salt and the pair alone, so adding pairs does not change a pair's side.

    Args:
        answers: Answers of the evaluation.
        salt: Secret that determines the sides; must be hidden from voters.
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
    """Return the metrics of human votes as a judge.

    Several votes on one pair are averaged. `annotators` holds the agreement on the choices
    between PPO, opponent and tie (`examine`).

    Args:
        answers: Answers of the evaluation.
        sides: Pair id -> side of PPO's answer.
        votes: One vote per voter and pair.
        opponent: Opponent of PPO.
        seed: Seed of the bootstraps.
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
    """Return votes as labels of pairs: PPO, opponent or tie."""
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
