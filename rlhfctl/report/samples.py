"""Sampled responses of a report, truncated for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhfctl.report.numbers import finite, number
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CHARACTERS = 2000
_POLICIES = (("sft", "SFT"), ("ppo", "PPO"))


@dataclass(frozen=True)
class Response:
    """One policy's response with its formatted scores."""

    policy: str
    text: str
    scores: str
    preferred: str


@dataclass(frozen=True)
class Sample:
    """A held-out prompt and the responses to it.

    Attributes:
        prompt: Prompt text.
        responses: SFT's, then PPO's.
        preferred: The policy whose response was preferred; `tie`, or empty without scores.
        at_odds: Whether the proxy rose from SFT to PPO and gold fell.
    """

    prompt: str
    responses: tuple[Response, ...]
    preferred: str
    at_odds: bool


@dataclass(frozen=True)
class TrainingSample:
    """A response saved during PPO."""

    episode: str
    prompt: str
    response: str
    metrics: str


def held_out(rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """Return the evaluation's samples; of two responses the higher gold (else proxy) is marked."""
    return [_sample(row) for row in rows]


def of_training(rows: Sequence[Mapping[str, Any]]) -> list[TrainingSample]:
    """Return the samples saved during PPO."""
    return [
        TrainingSample(
            number(row.get("episode")),
            cut(row.get("prompt", "")),
            cut(row.get("response", "")),
            _written({name: row.get(name) for name in ("score", "kl")}),
        )
        for row in rows
    ]


def cut(text: Any) -> str:
    """Return the text with invisible characters spelt out, truncated if it is long."""
    shown = visible(str(text))
    if len(shown) <= MOST_CHARACTERS:
        return shown
    return f"{shown[:MOST_CHARACTERS]} … ({len(shown) - MOST_CHARACTERS:,} more characters)"


def _sample(row: Mapping[str, Any]) -> Sample:
    value = row.get("scores")
    scores = value if isinstance(value, dict) else {}
    of_policy = {
        name: policy_scores if isinstance(policy_scores := scores.get(name), dict) else {}
        for name, _ in _POLICIES
    }
    judge, winner = _preferred(of_policy)
    return Sample(
        cut(row.get("prompt", "")),
        tuple(
            Response(
                label,
                cut(row[name]),
                _written(of_policy[name]),
                f"preferred by {judge}" if name == winner else "",
            )
            for name, label in _POLICIES
            if name in row
        ),
        winner or ("tie" if judge else ""),
        _change(of_policy, "proxy") > 0 > _change(of_policy, "gold"),
    )


def _preferred(scores: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return the judge and the policy it prefers; no policy for a tie or without scores."""
    for judge in ("gold", "proxy"):
        sft, ppo = (finite(scores[name].get(judge)) for name in ("sft", "ppo"))
        if sft is not None and ppo is not None:
            return judge, "" if sft == ppo else ("ppo" if ppo > sft else "sft")
    return "", ""


def _change(scores: Mapping[str, Mapping[str, Any]], name: str) -> float:
    sft, ppo = (finite(scores[policy].get(name)) for policy in ("sft", "ppo"))
    return ppo - sft if sft is not None and ppo is not None else 0.0


def _written(scores: Mapping[str, Any]) -> str:
    names = {"kl": "KL"}
    return " · ".join(
        f"{names.get(name, name)} {number(value)}"
        for name, value in scores.items()
        if finite(value) is not None
    )
