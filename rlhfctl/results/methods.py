"""Results of a comparison of methods: `methods.json`, typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rlhfctl.results.estimate import Estimate  # noqa: TC001 - for get_type_hints
from rlhfctl.results.sweep import RunError  # noqa: TC001 - for get_type_hints

Judge = Literal["gold", "held_out_rm"]


@dataclass(frozen=True)
class FrontierPoint:
    """A policy at one distance from SFT, on held-out prompts.

    Attributes:
        kl: KL to SFT, nats per response.
        win_rate: Share of prompts whose response the judge scores above SFT's; ties one half.
        gain: Mean of the judge's score minus SFT's.
        proxy_gain: The same by the reward that the method is given.
        name: What made it: episodes, beta or n.
    """

    kl: float
    win_rate: float
    gain: float
    proxy_gain: float | None = None
    name: str = ""


@dataclass(frozen=True)
class MethodRun:
    """One method with one seed.

    Attributes:
        method: Name of the method.
        seed: Seed of the runs.
        runs: Names of its run folders.
        status: Progress.
        error: Error of a failed run.
        frontier: Its policies by KL; SFT is the first.
        result: The policy that the method returns, on the evaluation's prompts.
        seconds: Training time of the method's own stage; 0 for best-of-n.
        total_seconds: The same with the shared stages that it needs.
        memory_bytes: Peak memory of its own stage.
        alarms: Names of the alarms of held-out evaluations.
    """

    method: str
    seed: int
    runs: list[str]
    status: Literal["waiting", "done", "failed"]
    error: RunError | None = None
    frontier: list[FrontierPoint] = field(default_factory=list)
    result: FrontierPoint | None = None
    seconds: float | None = None
    total_seconds: float | None = None
    memory_bytes: float | None = None
    alarms: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MeanPoint:
    """A method's frontier at one KL: means over seeds, with 95 % CIs between them."""

    kl: float
    win_rate: Estimate
    gain: Estimate
    proxy_gain: Estimate | None = None


@dataclass(frozen=True)
class MethodSummary:
    """A method over its seeds: means, with 95 % CIs between seeds.

    Attributes:
        method: Name of the method.
        seeds: Seeds that have finished.
        kl: KL of the result, nats per response.
        win_rate: Win rate of the result over SFT.
        gain: Gain of the result in the judge's score.
        proxy_gain: Gain of the result in the reward that the method is given.
        win_rate_at_kl: Win rate where the frontier crosses the common KL.
        gain_at_kl: Gain there.
        over_optimisation: Gain at the frontier's largest KL minus its best gain, at most 0.
        seconds: Training time of the method's own stage.
        total_seconds: The same with the shared stages that it needs.
        memory_bytes: Peak memory of its own stage.
        frontier: Its mean frontier, as far as all of its seeds reach.
    """

    method: str
    seeds: list[int]
    kl: Estimate | None = None
    win_rate: Estimate | None = None
    gain: Estimate | None = None
    proxy_gain: Estimate | None = None
    win_rate_at_kl: Estimate | None = None
    gain_at_kl: Estimate | None = None
    over_optimisation: Estimate | None = None
    seconds: Estimate | None = None
    total_seconds: Estimate | None = None
    memory_bytes: Estimate | None = None
    frontier: list[MeanPoint] = field(default_factory=list)


@dataclass(frozen=True)
class MethodsResult:
    """Contents of `methods.json`.

    Attributes:
        recipe: Recipe file, as named by the user.
        judge: Score behind win rates and gains.
        kl: KL at which methods are compared: the largest that every finished run reaches.
        methods: One summary per method that has finished with some seed, in the order asked for.
        runs: Every method with every seed.
    """

    recipe: str
    judge: Judge
    methods: list[MethodSummary]
    runs: list[MethodRun]
    kl: float | None = field(default=None, metadata={"null": True})
