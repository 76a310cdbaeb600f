"""Comparison of several runs: verdicts, key metrics, recipe differences and curves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from rlhfctl.errors import CheckpointError, UsageError
from rlhfctl.report import markdown, values, verdict
from rlhfctl.report.blocks import (
    Bar,
    Block,
    Column,
    EstimateCell,
    Section,
    estimate_cell,
    finite_ends,
    plots,
    table,
)
from rlhfctl.report.curves import MAIN_PLOTS, Line, Plot, curve, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import as_estimate, number, share, value_of
from rlhfctl.run.directory import RECIPE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.results.estimate import Estimate
    from rlhfctl.results.evaluation import PolicyMetrics
    from rlhfctl.results.training import HeldOutLine
    from rlhfctl.stage_table import Stage

MOST_RUNS = 12
_OF_COMPARISON: tuple[tuple[str, Callable[[RunFacts], Estimate | None]], ...] = (
    ("Gold win rate over SFT", lambda run: run.comparison.gold_win_rate),
    ("Proxy win rate over SFT", lambda run: run.comparison.proxy_win_rate),
)
_OF_POLICY: tuple[
    tuple[str, Callable[[PolicyMetrics], Estimate | float | None], Callable[[Any], str]], ...
] = (
    ("Gold reward", lambda policy: policy.gold, number),
    ("Proxy reward", lambda policy: policy.proxy, number),
    ("KL, nats per response", lambda policy: policy.kl, number),
    ("Length, tokens", lambda policy: policy.length, number),
    ("Repeated n-grams", lambda policy: policy.repetition, share),
)


def html(runs: Sequence[RunFacts]) -> str:
    """Return the comparison as one self-contained page."""
    parts = sections(runs)
    contents = [(part.anchor, part.title) for part in parts]
    view = {**_head(runs), "sections": parts, "contents": contents, "summary": []}
    return write("sections.html.j2", view)


def markdown_text(runs: Sequence[RunFacts]) -> str:
    """Return the comparison as Markdown."""
    parts = sections(runs)
    return "\n".join([f"## {markdown.plain(_head(runs)['name'])}", "", *markdown.written(parts)])


def value(runs: Sequence[RunFacts]) -> dict[str, Any]:
    """Return the comparison as a JSON object: each run's report, and how their recipes differ."""
    different = {key: list(per_run) for key, per_run in recipe_differences(runs)}
    return {"runs": [values.report(run) for run in runs], "recipe_differences": different}


def sections(runs: Sequence[RunFacts]) -> list[Section]:
    """Return the parts of the comparison.

    Raises:
        UsageError: Too many runs for one page.
    """
    if len(runs) > MOST_RUNS:
        raise UsageError(
            f"{len(runs)} runs are too many for one page",
            hint=f"name at most {MOST_RUNS} of them",
        )
    parts = (
        ("Verdicts", _verdicts(runs)),
        ("Key metrics", _key_metrics(runs)),
        ("Recipes", _recipes(runs)),
        ("Curves", _curves(runs)),
    )
    return [Section(title, blocks) for title, blocks in parts if blocks]


def recipe_differences(runs: Sequence[RunFacts]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every recipe key whose value is not the same in all runs, with each run's value.

    Raises:
        CheckpointError: If a run's recipe is not a YAML mapping.
    """
    recipes = [dict(_keys(_recipe(run))) for run in runs]
    for key in dict.fromkeys(key for recipe in recipes for key in recipe):
        per_run = tuple(recipe.get(key, "not set") for recipe in recipes)
        if len(set(per_run)) > 1 and key != "name":
            yield key, per_run


def _head(runs: Sequence[RunFacts]) -> dict[str, str]:
    return {"name": " · ".join(run.name for run in runs), "kind": "RLHF runs compared"}


def _verdicts(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    verdicts = [(run.name, verdict.verdict_of(run)) for run in runs]
    return table(
        "The cautions are listed in each run's own report.",
        (
            Column("Run"),
            Column("Verdict"),
            Column("Summary", "sentence"),
            Column("Cautions", "number"),
        ),
        [
            (name, result.label, result.sentence, number(len(result.cautions)))
            for name, result in verdicts
        ],
    )


def _key_metrics(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    """Return a matrix of metrics and runs."""
    rows = [
        (
            label,
            *(
                _with_bar(estimate_cell(estimate, write_metric), bar)
                for estimate, bar in zip(estimates, _bars(estimates), strict=True)
            ),
        )
        for label, estimates, write_metric in _estimates(runs)
        if any(value_of(estimate) is not None for estimate in estimates)
    ]
    caption = (
        "Metrics of the PPO policy on held-out prompts, with 95 % CIs. The bars of a row have one "
        "scale."
    )
    return table(caption, _columns(runs, "Metric", "number"), rows)


def _with_bar(cell: EstimateCell | None, bar: Bar | None) -> EstimateCell | None:
    return None if cell is None else replace(cell, bar=bar)


def _columns(runs: Sequence[RunFacts], label: str, kind: str = "text") -> list[Column]:
    return [Column(label), *(Column(run.name, kind) for run in runs)]


def _estimates(
    runs: Sequence[RunFacts],
) -> Iterator[tuple[str, list[Estimate | None], Callable[[Any], str]]]:
    """Yield each metric's label, its value per run and its format."""
    for label, of_run in _OF_COMPARISON:
        yield label, [of_run(run) for run in runs], share
    policies = [run.policy("ppo") for run in runs]
    for label, of_policy, write_metric in _OF_POLICY:
        per_run = [as_estimate(of_policy(policy)) if policy else None for policy in policies]
        yield label, per_run, write_metric
    judges = [(run.evaluation.judges if run.evaluation else None) or {} for run in runs]
    for name in dict.fromkeys(name for of_run in judges for name in of_run):
        rates = [of_run[name].preferences.win_rate if name in of_run else None for of_run in judges]
        yield f"Win rate by {name}", rates, share


def _bars(estimates: Sequence[Estimate | None]) -> list[Bar | None]:
    """Return a bar per run, on a scale from the lowest end to the highest."""
    per_run = [finite_ends(estimate) for estimate in estimates]
    ends = [end for three in per_run if three for end in three]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    width = high - low or 1.0
    return [
        Bar(*(100 * (end - low) / width for end in three)) if three else None for three in per_run
    ]


def _recipes(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    """Return a matrix of the recipe keys that differ and runs."""
    return table(
        "Recipe keys whose values differ between runs.",
        _columns(runs, "Key"),
        [(key, *per_run) for key, per_run in recipe_differences(runs)],
    )


def _recipe(run: RunFacts) -> Mapping[str, Any]:
    try:
        recipe = yaml.safe_load(run.recipe) if run.recipe else {}
    except yaml.YAMLError as error:
        raise _no_recipe(run) from error
    if not isinstance(recipe, dict):
        raise _no_recipe(run)
    return recipe


def _no_recipe(run: RunFacts) -> CheckpointError:
    return CheckpointError(
        "the run's recipe is not a YAML mapping",
        where=f"{run.name}/{RECIPE_FILE}",
        hint="Re-run one of its stages to write the recipe again.",
    )


def _keys(recipe: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in recipe.items():
        dotted = f"{above}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{dotted}.")
        else:
            yield dotted, str(value)


def _curves(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    """Return the true reward against √KL to SFT, then every stage's main curves."""
    rewards: tuple[tuple[str, Callable[[HeldOutLine], Estimate | None]], ...] = (
        ("True reward against √KL", lambda line: line.true_reward),
        ("Proxy against √KL", lambda line: line.proxy),
    )
    against = [
        Plot(title, lines, "√KL to SFT, √nats", "mean score, 95 % CI", whole_steps=False)
        for title, reward in rewards
        if (lines := _along(runs, reward))
    ]
    over = [
        Plot(f"{main.stage.title}: {plot.title}", lines, runs[0].unit(main.stage), plot.y)
        for main in MAIN_PLOTS
        for plot in main.plots
        if (lines := _overlaid(runs, main.stage, plot.curves[0].metric))
    ]
    return (*plots(against), *plots(over))


def _along(
    runs: Sequence[RunFacts], reward: Callable[[HeldOutLine], Estimate | None]
) -> tuple[Line, ...]:
    lines = (
        interval_line(
            run.name, [(line.sqrt_kl, reward(line)) for line in run.held_out], colour=colour
        )
        for colour, run in enumerate(runs, 1)
    )
    return tuple(line for line in lines if line is not None)


def _overlaid(runs: Sequence[RunFacts], stage: Stage, metric: str) -> tuple[Line, ...]:
    lines = (
        curve(metric, run.name, run.curves.get(stage.name, []), colour)
        for colour, run in enumerate(runs, 1)
    )
    return tuple(line for line in lines if line is not None)
