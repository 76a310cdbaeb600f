"""Summary table of a command: headline metrics and duration per stage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from rlhfctl.console import duration, safe
from rlhfctl.errors import CheckpointError
from rlhfctl.report.cautions import act_sentence
from rlhfctl.report.policy_name import policy_name
from rlhfctl.report.significance import independent_judges
from rlhfctl.results.evaluation import Comparison, EvaluationResult
from rlhfctl.results.training import DPOResult, PPOResult, RewardModelResult, SFTResult
from rlhfctl.stage_table import DPO, EVALUATION, PPO, REWARD_MODEL, SFT, stage_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rlhfctl.pipeline import StageResult
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import PolicyMetrics
    from rlhfctl.run.manifest import StageRecord


def results_table(results: Sequence[StageResult], manifest: Path) -> Table:
    """Return a table with the headline metrics and the duration of each stage.

    A stage that another version of rlhfctl ran may have other metrics; the table then says so in
    their place, since the stages that did run are still worth showing.

    Args:
        results: Results of the stages.
        manifest: File that the records are from, for messages.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", style="bold", no_wrap=True)
    table.add_column("result", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for result in results:
        time = "up to date" if result.status == "skipped" else duration(result.record.seconds)
        try:
            lines = headline(result.record, manifest)
        except CheckpointError as error:
            lines = [str(error)]
        table.add_row(stage_named(result.stage).title, safe("\n".join(lines)), time)
    return table


def headline(record: StageRecord, manifest: Path) -> list[str]:
    """Return a stage's headline metrics as lines; absent metrics are omitted.

    Raises:
        CheckpointError: A metric is unknown, missing or of the wrong type.
    """
    stage = stage_named(record.stage)
    lines: list[str] = []
    if stage is SFT:
        lines = _sft(record.result(SFTResult, manifest))
    elif stage is REWARD_MODEL:
        lines = _reward_model(record.result(RewardModelResult, manifest))
    elif stage is PPO:
        lines = _ppo(record.result(PPOResult, manifest))
    elif stage is DPO:
        lines = _dpo(record.result(DPOResult, manifest))
    elif stage is EVALUATION:
        name = policy_name(record, manifest.parent)
        lines = _evaluation(record.result(EvaluationResult, manifest), name)
    return [line for line in lines if line]


def _sft(result: SFTResult) -> list[str]:
    accuracy = (result.token_accuracy_before, result.token_accuracy)
    return [
        _change("held-out loss", result.eval_loss_before, result.eval_loss, "{:.3f}"),
        _change("token accuracy", *accuracy, "{:.1%}"),
    ]


def _reward_model(result: RewardModelResult) -> list[str]:
    return [
        _interval("held-out accuracy", result.accuracy),
        _interval(
            f'baseline "prefer the {result.length_baseline.preferred} response"',
            result.length_baseline.accuracy,
        ),
        _interval("accuracy on gold-ordered pairs", result.gold_accuracy),
    ]


def _dpo(result: DPOResult) -> list[str]:
    return [
        _interval("held-out accuracy", result.accuracy),
        _metric("held-out margin {:.3g}", result.mean_margin),
        _metric("held-out loss {:.3f}", result.eval_loss),
    ]


def _ppo(result: PPOResult) -> list[str]:
    last, final = result.last_rollout, result.result
    rows: tuple[tuple[str, str, Estimate | None], ...] = (
        ("score", "score", final.proxy if final else None),
        ("objective score", "objective_score", final.objective_score if final else None),
        ("KL in nats per response", "kl", final.kl if final else None),
        ("response length in tokens", "response_length", final.length if final else None),
    )
    lines = [_last_and_final(label, last.get(name), ours) for label, name, ours in rows]
    if lines[1].removeprefix("objective ") == lines[0]:
        del lines[1]
    skipped = result.skipped_minibatches
    acts = (result.over_optimisation.acts if result.over_optimisation else None) or []
    return [
        *lines,
        *map(act_sentence, acts),
        f"{skipped} minibatches skipped" if skipped else "",
    ]


def _evaluation(result: EvaluationResult, policy: str) -> list[str]:
    comparison = result.comparison or Comparison()
    ppo = result.policies.get("ppo")
    return [
        _interval(f"{policy} win rate over SFT (gold reward)", comparison.gold_win_rate),
        *(
            _interval(f"{policy} win rate over SFT ({name})", judge.preferences.win_rate)
            for name, judge in independent_judges(result)
        ),
        _interval(f"{policy} win rate over SFT (reward model score)", comparison.proxy_win_rate),
        _versus("gold reward", result, lambda policy: policy.gold),
        _versus("score", result, lambda policy: policy.proxy),
        _versus("objective score", result, lambda policy: policy.objective_score),
        _metric("KL {:.3g} nats per response", ppo.kl.value if ppo else None),
    ]


def _last_and_final(label: str, last: float | None, final: Estimate | None) -> str:
    """Return a metric of the last rollout, and that of the returned policy on held-out prompts."""
    shown = [f"{last:.3g} in the last rollout"] if last is not None and not _absent(last) else []
    if final is not None and not _absent(final.value):
        shown.append(f"{final.value:.3g} on held-out prompts")
    return f"{label} {', '.join(shown)}" if shown else ""


def _metric(template: str, value: float | None) -> str:
    return "" if _absent(value) else template.format(value)


def _change(label: str, before: float | None, after: float | None, template: str) -> str:
    if _absent(after):
        return ""
    shown = template.format(after)
    return (
        f"{label} {shown}" if _absent(before) else f"{label} {template.format(before)} -> {shown}"
    )


def _absent(value: float | None) -> bool:
    """Return whether a number is missing, NaN or infinite."""
    return value is None or not math.isfinite(value)


def _versus(
    label: str, result: EvaluationResult, score: Callable[[PolicyMetrics], Estimate | None]
) -> str:
    """Return one score of SFT and PPO."""
    policies = (result.policies.get(name) for name in ("sft", "ppo"))
    estimates = [score(policy) if policy else None for policy in policies]
    sft, ppo = (None if estimate is None else estimate.value for estimate in estimates)
    return _change(label, sft, ppo, "{:.3g}")


def _interval(label: str, estimate: Estimate | None) -> str:
    if estimate is None or _absent(estimate.value):
        return ""
    shown = f"{label} {estimate.value:.1%}"
    if _absent(estimate.low) or _absent(estimate.high):
        return shown
    return f"{shown} ({estimate.low:.1%} to {estimate.high:.1%})"
