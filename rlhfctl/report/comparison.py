"""Comparison of several runs: verdicts, key metrics, recipe differences and curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from rlhfctl.errors import CheckpointError, UsageError
from rlhfctl.report import markdown, values, verdict
from rlhfctl.report.blocks import (
    Bar,
    Block,
    Cell,
    Column,
    Group,
    Section,
    grouped,
    objects,
    plots,
    table,
)
from rlhfctl.report.curves import MAIN_PLOTS, Plot, curve, interval_line
from rlhfctl.report.html import write
from rlhfctl.report.numbers import finite, interval, number, share
from rlhfctl.run.directory import RECIPE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rlhfctl.report.sources import RunFacts
    from rlhfctl.stage_table import Stage

MOST_RUNS = 12
_METRICS: tuple[tuple[str, str, str, Callable[[Any], str]], ...] = (
    ("Gold win rate over SFT", "", "gold_win_rate", share),
    ("Proxy win rate over SFT", "", "proxy_win_rate", share),
    ("Gold reward", "ppo", "gold", number),
    ("Proxy reward", "ppo", "proxy", number),
    ("KL, nats per response", "ppo", "kl", number),
    ("Length, tokens", "ppo", "length", number),
    ("Repeated n-grams", "ppo", "repetition", share),
)


def html(runs: Sequence[RunFacts]) -> str:
    """Return the comparison as one self-contained page."""
    return write("sections.html.j2", {**_head(runs), "sections": sections(runs), "summary": []})


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
    groups = []
    names = dict.fromkeys(name for run in runs for name in objects(run.evaluation.get("judges")))
    judges = tuple((f"Win rate by {name}", f"judges.{name}", "win_rate", share) for name in names)
    for label, source, name, write_figure in (*_METRICS, *judges):
        sides = [_source(run, source) for run in runs]
        measured = [side for side in sides if finite(side.get(name)) is not None]
        if measured:
            bars = _bars(sides, name)
            rows: list[tuple[Cell, ...]] = [
                (run.name, write_figure(side.get(name)), interval(side, name, write_figure), bar)
                for run, side, bar in zip(runs, sides, bars, strict=True)
            ]
            groups.append(Group(tuple(rows), label))
    columns = (
        Column("Run"),
        Column("Value", "number"),
        Column("95 % CI", "number"),
        Column("All runs", "range"),
    )
    caption = "Metrics of the PPO policy on held-out prompts. Bars show the 95 % CIs."
    return grouped(caption, columns, groups) if groups else ()


def _source(run: RunFacts, source: str) -> Mapping[str, Any]:
    if source == "ppo":
        return objects(run.evaluation.get("policies")).get("ppo", {})
    if source.startswith("judges."):
        return objects(run.evaluation.get("judges")).get(source.removeprefix("judges."), {})
    return run.evaluation


def _bars(sides: Sequence[Mapping[str, Any]], name: str) -> list[Bar | None]:
    """Return a bar per run, on a scale from the lowest end to the highest."""
    ends = [[finite(side.get(name + end)) for end in ("_low", "", "_high")] for side in sides]
    finite_ends = [[end for end in three if end is not None] for three in ends]
    all_ends = [end for three in finite_ends if len(three) == 3 for end in three]
    low, high = (min(all_ends), max(all_ends)) if all_ends else (0.0, 1.0)
    width = high - low or 1.0
    return [
        Bar(*(100 * (end - low) / width for end in three)) if len(three) == 3 else None
        for three in finite_ends
    ]


def _recipes(runs: Sequence[RunFacts]) -> tuple[Block, ...]:
    groups = [
        Group(tuple((run.name, value) for run, value in zip(runs, per_run, strict=True)), key)
        for key, per_run in recipe_differences(runs)
    ]
    caption = "Recipe keys whose values differ between runs."
    return grouped(caption, (Column("Run"), Column("Value")), groups) if groups else ()


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
    against = [
        Plot(title, lines, whole_steps=False)
        for title, name in (
            ("True reward against √KL", "true_reward"),
            ("Proxy against √KL", "proxy"),
        )
        if (lines := _along(runs, name))
    ]
    over = [
        Plot(f"{main.stage.title}: {plot.title}", lines)
        for main in MAIN_PLOTS
        for plot in main.plots
        if (lines := _overlaid(runs, main.stage, plot.curves[0].metric))
    ]
    return (*plots(against), *plots(over))


def _along(runs: Sequence[RunFacts], name: str) -> tuple[Any, ...]:
    lines = (
        interval_line(run.name, run.held_out, "sqrt_kl", name, colour=colour)
        for colour, run in enumerate(runs, 1)
    )
    return tuple(line for line in lines if line is not None)


def _overlaid(runs: Sequence[RunFacts], stage: Stage, metric: str) -> tuple[Any, ...]:
    lines = (
        curve(metric, run.name, run.curves.get(stage.name, []), colour)
        for colour, run in enumerate(runs, 1)
    )
    return tuple(line for line in lines if line is not None)
