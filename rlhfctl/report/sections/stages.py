"""Status and key metrics of every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.report.blocks import Cell, Column, Group, estimate_cells, grouped
from rlhfctl.report.numbers import duration, number, share
from rlhfctl.report.significance import independent_judges
from rlhfctl.stage_table import DPO, EVALUATION, PPO, REWARD_MODEL, SFT, STAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlhfctl.report.blocks import Block
    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.training import ResultEvaluation
    from rlhfctl.stage_table import Stage

    Row = tuple[Cell, ...]

_ROLLOUT = (
    ("Score, last rollout", "score"),
    ("Objective score, last rollout", "objective_score"),
    ("KL to the reference, nats per response, last rollout", "kl"),
    ("Response length, tokens, last rollout", "response_length"),
    ("Fraction ended by EOS, last rollout", "eos_share"),
    ("Episodes per second", "episodes_per_second"),
)


def blocks(facts: RunFacts) -> tuple[Block, ...]:
    """Return the key metrics of every stage, in pipeline order; folded once all are finished."""
    finished = all(stage.name in facts.records for stage in STAGES)
    return grouped(
        "Key metrics of each stage. An arrow reads “before → after training”.",
        (Column("Metric"), Column("Value", "number"), Column("95 % CI", "number")),
        [
            _group(facts, stage, rows)
            for stage, rows in (
                (SFT, _sft),
                (REWARD_MODEL, _reward_model),
                (PPO, _ppo),
                (DPO, _dpo),
                (EVALUATION, _evaluation),
            )
            if stage in STAGES or stage.name in facts.records
        ],
        folded="Key metrics of every stage" if finished else "",
    )


def _group(facts: RunFacts, stage: Stage, rows: Callable[[RunFacts], list[Row]]) -> Group:
    record = facts.records.get(stage.name)
    if record is None:
        state = "unfinished" if facts.curves.get(stage.name) else "not run yet"
        return Group((), stage.title, f"{state}: rlhfctl {stage.command}")
    return Group(tuple(rows(facts)), stage.title, duration(record.seconds))


def _sft(facts: RunFacts) -> list[Row]:
    if (sft := facts.sft) is None:
        return []
    return [
        _change("Held-out loss, nats per token", sft.eval_loss_before, sft.eval_loss),
        _change("Held-out token accuracy", sft.token_accuracy_before, sft.token_accuracy),
        _number("Training rows", sft.train_rows),
        _number("Held-out rows", sft.held_out_rows),
    ]


def _reward_model(facts: RunFacts) -> list[Row]:
    if (model := facts.reward_model) is None:
        return []
    scale = (
        ("Raw score, mean", model.score_mean),
        ("Raw score, standard deviation", model.score_std),
    )
    return [
        *_shares(
            ("Held-out accuracy", model.accuracy),
            ("Accuracy on gold labels", model.gold_accuracy),
            (f"Baseline: {model.length_baseline}", model.length_baseline.accuracy),
        ),
        _number("Held-out pairs", model.pairs),
        *(_number(label, value) for label, value in scale if value is not None),
    ]


def _ppo(facts: RunFacts) -> list[Row]:
    if (ppo := facts.ppo) is None:
        return []
    last = ppo.last_rollout
    return [
        _number("Episodes", ppo.episodes),
        *(
            _number(label, last[name])
            for label, name in _ROLLOUT
            if name in last and not (name == "objective_score" and last[name] == last.get("score"))
        ),
        *(_result(ppo.result) if ppo.result is not None else ()),
    ]


def _dpo(facts: RunFacts) -> list[Row]:
    if (dpo := facts.dpo) is None:
        return []
    return [
        *_shares(("Held-out accuracy of the implicit reward", dpo.accuracy)),
        _number("Margin: chosen − rejected, held out", dpo.mean_margin),
        _number("Held-out pairs", dpo.pairs),
    ]


def _result(result: ResultEvaluation) -> list[Row]:
    """Return the held-out metrics of the policy that PPO returns."""
    estimates = (
        ("Score", result.proxy),
        (
            "Objective score",
            None if result.objective_score == result.proxy else result.objective_score,
        ),
        ("KL to the reference, nats per response", result.kl),
        ("Response length, tokens", result.length),
    )
    where = "final policy on held-out prompts"
    return [
        *(
            (f"{label}, {where}", *estimate_cells(estimate))
            for label, estimate in estimates
            if estimate is not None
        ),
        _number(f"Fraction ended by EOS, {where}", result.eos_share),
    ]


def _evaluation(facts: RunFacts) -> list[Row]:
    if (evaluation := facts.evaluation) is None:
        return []
    comparison, policy = facts.comparison, facts.policy_name
    return [
        *_shares(
            (f"Gold win rate of {policy} over SFT", comparison.gold_win_rate),
            *(
                (f"Win rate of {policy} over SFT by {name}", judge.preferences.win_rate)
                for name, judge in independent_judges(evaluation)
            ),
            (f"Proxy win rate of {policy} over SFT", comparison.proxy_win_rate),
        ),
        _number("Held-out prompts", evaluation.prompts),
    ]


def _change(label: str, before: float, after: float) -> Row:
    return label, f"{number(before)} \N{RIGHTWARDS ARROW} {number(after)}", ""


def _shares(*estimates: tuple[str, Estimate | None]) -> list[Row]:
    return [
        (label, *estimate_cells(estimate, share))
        for label, estimate in estimates
        if estimate is not None
    ]


def _number(label: str, value: float) -> Row:
    return label, number(value), ""
