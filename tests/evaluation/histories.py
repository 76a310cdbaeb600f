"""Made-up evaluations during PPO: metrics of every prompt, as `held_out.jsonl` has them."""

import numpy as np
from numpy.typing import NDArray

from rlhfctl.results.estimate import Estimate
from rlhfctl.results.training import HeldOutLine

PROMPTS = 48
SPREAD = {  # mean and standard deviation over prompts and over a prompt's responses
    "proxy": (0.0, 1.0),
    "true_reward": (0.5, 1.0),
    "length": (30.0, 10.0),
    "entropy": (1.5, 0.5),
    "disagreement": (0.3, 0.1),
    "state_distance": (1.0, 0.2),
    "contribution_a": (0.0, 1.0),
    "contribution_b": (0.0, 0.5),
}


def history(metrics: dict[str, NDArray[np.float64]], step: int = 64) -> list[HeldOutLine]:
    """Lines of [evaluations, prompts] metrics, every `step` episodes; their means are left at 0."""
    (evaluations,) = {len(values) for values in metrics.values()}
    nothing = Estimate(0.0)
    return [
        HeldOutLine(
            step=index * step,
            rollout=index,
            kl=nothing,
            proxy=nothing,
            length=nothing,
            repetition=nothing,
            certainty=nothing,
            hedging=nothing,
            entropy=nothing,
            eos_share=0.0,
            sqrt_kl=0.0,
            per_prompt={name: values[index].tolist() for name, values in metrics.items()},
        )
        for index in range(evaluations)
    ]


def quiet(
    rng: np.random.Generator, evaluations: int = 16, prompts: int = PROMPTS
) -> dict[str, NDArray[np.float64]]:
    """Metrics of a run in which nothing changes but the responses that are drawn.

    Half of the variance is the prompt's own. Lengths have a long tail, repetition is mostly 0 and
    certainty and scores out of range are rare, as in real responses.
    """

    def drawn() -> NDArray[np.float64]:
        own = rng.normal(size=prompts)
        values: NDArray[np.float64] = (own + rng.normal(size=(evaluations, prompts))) / np.sqrt(2)
        return values

    metrics = {name: mean + sd * drawn() for name, (mean, sd) in SPREAD.items()}
    metrics["length"] = np.round(np.exp(np.log(30) + 0.5 * drawn()))
    metrics["repetition"] = np.maximum(0.0, 0.1 * (drawn() - 1))
    metrics["certainty"] = (drawn() > 1.0).astype(float)
    metrics["out_of_range"] = (drawn() > 2.0).astype(float)
    metrics["saturated"] = (drawn() > 2.0).astype(float)
    metrics["kl"] = np.linspace(0, 4, evaluations)[:, None] * np.exp(0.5 * drawn())
    return metrics
