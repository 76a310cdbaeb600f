"""Sampled responses of a report, truncated for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.report.numbers import finite, number
from rlhfctl.run.text import visible
from rlhfctl.stage_table import PPO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.results import samples

MOST_CHARACTERS = 2000
# A KL divergence is a mean over responses and not negative; the estimate from one may be.
_K1 = "log ratio to the reference"


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


def held_out(rows: Sequence[samples.EvaluationSample], policy: str = PPO.title) -> list[Sample]:
    """Return the evaluation's samples; of two responses the higher gold (else proxy) is marked.

    Args:
        rows: Prompts with responses.
        policy: Method of the policy beside SFT.
    """
    return [_sample(row, policy) for row in rows]


def of_training(rows: Sequence[samples.TrainingSample]) -> list[TrainingSample]:
    """Return the samples saved during PPO."""
    return [
        TrainingSample(
            number(row.episode),
            cut(row.prompt),
            cut(row.response),
            _written(("score", row.score), (_K1, row.kl)),
        )
        for row in rows
    ]


def cut(text: str) -> str:
    """Return the text with invisible characters spelt out, truncated if it is long."""
    shown = visible(text)
    if len(shown) <= MOST_CHARACTERS:
        return shown
    return f"{shown[:MOST_CHARACTERS]} … ({len(shown) - MOST_CHARACTERS:,} more characters)"


def _sample(row: samples.EvaluationSample, policy: str) -> Sample:
    judge, winner = _preferred(row)
    return Sample(
        cut(row.prompt),
        tuple(
            Response(
                label,
                cut(row.responses[name]),
                _scores(row.scores.get(name)),
                f"preferred by {judge}" if name == winner else "",
            )
            for name, label in (("sft", "SFT"), ("ppo", policy))
            if name in row.responses
        ),
        winner or ("tie" if judge else ""),
        (change_of(row, "proxy") or 0.0) > 0 > (change_of(row, "gold") or 0.0),
    )


def _preferred(row: samples.EvaluationSample) -> tuple[str, str]:
    """Return the judge and the policy it prefers; no policy for a tie or without scores."""
    for judge in ("gold", "proxy"):
        sft, ppo = _pair(row, judge)
        if sft is not None and ppo is not None:
            return judge, "" if sft == ppo else ("ppo" if ppo > sft else "sft")
    return "", ""


def change_of(row: samples.EvaluationSample, score: str) -> float | None:
    """Return the change of a score, `proxy` or `gold`, from SFT to PPO; None unless both have it."""
    sft, ppo = _pair(row, score)
    return ppo - sft if sft is not None and ppo is not None else None


def _pair(row: samples.EvaluationSample, score: str) -> tuple[float | None, float | None]:
    """Return one score, `proxy` or `gold`, of SFT's and PPO's response."""
    sft, ppo = (
        (scores.gold if score == "gold" else scores.proxy) if scores else None
        for scores in (row.scores.get("sft"), row.scores.get("ppo"))
    )
    return finite(sft), finite(ppo)


def _scores(scores: samples.SampleScores | None) -> str:
    if scores is None:
        return ""
    return _written(("proxy", scores.proxy), ("gold", scores.gold), (_K1, scores.kl))


def _written(*scores: tuple[str, float | None]) -> str:
    return " · ".join(
        f"{label} {number(value)}" for label, value in scores if finite(value) is not None
    )
