"""A plan of all stages of a recipe on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhfctl.plan.advice import Suggestion, suggestions
from rlhfctl.plan.estimates import peak_of_stage
from rlhfctl.plan.longest import longest_responses
from rlhfctl.plan.server import Server, beside_server, server_of
from rlhfctl.plan.shadow import read_architecture
from rlhfctl.plan.stage_memory import Planned
from rlhfctl.plan.target import GPUS, Target, target_named
from rlhfctl.plan.verdict import Verdict, verdict
from rlhfctl.plan.work import Work, dpo_work, ppo_work, supervised_work
from rlhfctl.stage_table import ALL_STAGES, DPO, PPO, REWARD_MODEL, SFT

if TYPE_CHECKING:
    from rlhfctl.plan.estimates import Peak
    from rlhfctl.plan.probe import Measured
    from rlhfctl.recipe.schema import Recipe


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        stage: Name in the stage table.
        title: Heading for people.
        peak: Estimated peak.
        verdict: Whether it fits.
        work: Tokens, steps, time and disk; None for the evaluation.
        suggestions: Settings that would make it fit.
        measured: Result of a probe.
    """

    stage: str
    title: str
    peak: Peak
    verdict: Verdict
    work: Work | None
    suggestions: list[Suggestion]
    measured: Measured | None = None


@dataclass(frozen=True)
class Plan:
    """All stages, with DPO, which a command of its own runs.

    Attributes:
        target: Device.
        parameters: Weights of the base model.
        stages: Stages, in order.
        longest: Tokens of the longest response per GPU size in GB; None: not asked for.
        server: Server of vLLM that PPO starts beside itself; None without one.
    """

    target: Target
    parameters: int
    stages: list[StagePlan]
    longest: dict[int, int] | None = None
    server: Server | None = None


def make_plan(
    recipe: Recipe,
    gpu: str | None = None,
    *,
    tflops: float | None = None,
    probe: bool = False,
    longest: bool = False,
) -> Plan:
    """Return the plan of a recipe; no weights are loaded unless it is probed.

    Args:
        recipe: Recipe.
        gpu: Name in `GPUS`; None: this machine.
        tflops: Sustained speed, in 10^12 operations per second; None: by the data sheet.
        probe: Whether to run real steps here, too.
        longest: Whether to look for the longest responses.

    Raises:
        UsageError: The GPU is unknown, or a probe of another device is asked for.
        EnvironmentFault: The config of the base cannot be read, or a probe failed.
    """
    target = target_named(gpu)
    if tflops is not None:
        # `_seconds` multiplies by the share of the peak that is reached.
        from rlhfctl.plan.target import UTILISATION

        target = replace(target, flops=tflops * 1e12 / UTILISATION)
    planned = Planned(recipe, read_architecture(recipe.model), target)
    stages = [_stage_plan(planned, stage.name, stage.title) for stage in ALL_STAGES]
    if probe:
        from rlhfctl.plan.probe import measure

        measured = measure(recipe)
        stages = [replace(stage, measured=measured.get(stage.stage)) for stage in stages]
    responses = longest_responses(_on_a_gpu(planned)) if longest else None
    parameters = planned.architecture.parameters
    return Plan(target, parameters, stages, responses, server_of(planned))


def _on_a_gpu(planned: Planned) -> Planned:
    if planned.target.kind == "cuda":
        return planned
    return replace(planned, target=GPUS["A10"])


def _stage_plan(planned: Planned, stage: str, title: str) -> StagePlan:
    if stage == PPO.name:
        planned = beside_server(planned)
    peak = peak_of_stage(planned, stage)
    judged = verdict(peak.split.total, planned.target)
    advice = [] if judged == "fits" else suggestions(planned, stage, peak.name)
    return StagePlan(stage, title, peak, judged, _work(planned, stage, peak), advice)


def _work(planned: Planned, stage: str, peak: Peak) -> Work | None:
    recipe = planned.recipe
    if stage == SFT.name:
        return supervised_work(planned, recipe.sft, recipe.data.demonstrations, peak.split, 1)
    if stage == REWARD_MODEL.name:
        return supervised_work(planned, recipe.reward_model, recipe.data.comparisons, peak.split, 2)
    if stage == DPO.name:
        return dpo_work(planned, peak.split)
    return ppo_work(planned, peak.split) if stage == PPO.name else None
