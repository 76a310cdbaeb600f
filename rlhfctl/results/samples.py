"""Rows of the files of sampled responses, `samples.jsonl` of evaluation and PPO."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SampleScores:
    """Scores of one response; None where unavailable. KL in nats per response."""

    proxy: float | None = None
    gold: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class EvaluationSample:
    """A held-out prompt: a row of `eval/samples.jsonl`.

    Attributes:
        prompt: Prompt text.
        responses: Response per policy, `sft` and `ppo`.
        scores: Scores per policy.
    """

    prompt: str
    responses: dict[str, str] = field(metadata={"inline": True})
    scores: dict[str, SampleScores]


@dataclass(frozen=True)
class TrainingSample:
    """A response saved during PPO: a row of `ppo/samples.jsonl`.

    Attributes:
        episode: Episodes trained on before it was sampled.
        prompt: Prompt text.
        response: Response text, without special tokens.
        score: Score by the recipe's reward sources.
        kl: k1 estimate of the KL to the reference, nats per response.
        ended: Whether the response ended with a stop token.
    """

    episode: int
    prompt: str
    response: str
    score: float
    kl: float
    ended: bool
