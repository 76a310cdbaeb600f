"""The `data` commands: agreement of annotators, and rows as the stages read them.

Annotations are not postponed here: Typer reads the types when a command is registered.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from rlhfctl.cli.help import Group, example
from rlhfctl.cli.options import (
    DEFAULT_RUNS_DIR,
    DebugOption,
    JsonOption,
    QuietOption,
    RecipeArg,
    RunOptions,
    RunsDirOption,
    SeedOption,
    SetOption,
)
from rlhfctl.console import Terminal, safe
from rlhfctl.errors import UsageError
from rlhfctl.results.io import to_json

_PAIRS_SHOWN = 10

app = typer.Typer(
    cls=Group,
    help="Check data before training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _data() -> None:
    """Check data before training."""


@app.command(epilog=example("rlhfctl data agreement labels.csv --columns annotator=worker"))
def agreement(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON, JSON Lines, CSV or Parquet file.")
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="NAME=COLUMN",
            help="Map an expected column to one in the file, for example "
            "annotator=worker_id. Repeatable.",
        ),
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure inter-annotator agreement and the accuracy ceiling it sets for a reward model.

    FILE holds labels by several annotators on the same items, in one of these layouts:

    - one row per comparison: prompt, chosen, rejected, annotator;

    - one row per label: item, annotator, label;

    - one row per item: a votes mapping or list, or one label_NAME column per annotator.
    """
    from rlhfctl.evaluation.annotator_quality import examine_file

    terminal = Terminal(quiet=quiet, as_json=json)
    result, report = examine_file(file, _mapping(columns or []), seed=0)
    metrics = to_json(result)
    if report.dropped:
        terminal.warn(report.summary())
    if json:
        rows = {"read": report.read, "dropped": report.dropped}
        terminal.write_json({"ok": True, "path": file, "rows": rows, "annotators": metrics})
        return
    for note in metrics["notes"]:
        terminal.note(note)
    for warning in metrics["warnings"]:
        terminal.warn(warning)
    terminal.result(*_shown(metrics))


@app.command(epilog=example("rlhfctl data show base --stage rm -n 2"))
def show(
    recipe: RecipeArg = None,
    stage: Annotated[
        str, typer.Option("--stage", metavar="sft|rm|ppo", help="Stage whose data is shown.")
    ] = "sft",
    count: Annotated[int, typer.Option("--rows", "-n", metavar="N", help="Rows to show.")] = 5,
    full: Annotated[bool, typer.Option("--full", help="Show long texts whole.")] = False,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show rows as the model reads them, with the loss mask, and count all rows."""
    from rlhfctl.cli.data_rows import show_data

    options = RunOptions(
        recipe=recipe, runs_dir=runs_dir, set=set_, seed=seed, json=json, quiet=quiet, debug=debug
    )
    show_data(options, stage, count, full=full)


@app.command(epilog=example("rlhfctl data prepare mine.yaml"))
def prepare(
    recipe: RecipeArg = None,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Encode all data of a recipe once, so that its stages start at once."""
    from rlhfctl.cli.data_rows import prepare_data

    options = RunOptions(
        recipe=recipe, runs_dir=runs_dir, set=set_, seed=seed, json=json, quiet=quiet, debug=debug
    )
    prepare_data(options)


@app.command(epilog=example("rlhfctl data duplicates mine.yaml -n 3"))
def duplicates(
    recipe: RecipeArg = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", metavar="X", help="Least Jaccard similarity, of sequences of 3 words."
        ),
    ] = 0.8,
    count: Annotated[int, typer.Option("--rows", "-n", metavar="N", help="Pairs to show.")] = 3,
    runs_dir: RunsDirOption = DEFAULT_RUNS_DIR,
    set_: SetOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Find prompts that are nearly the same, within training and in held-out prompts."""
    from rlhfctl.cli.data_duplicates import show_duplicates

    options = RunOptions(
        recipe=recipe, runs_dir=runs_dir, set=set_, seed=seed, json=json, quiet=quiet, debug=debug
    )
    show_duplicates(options, threshold, count)


@app.command(epilog=example("rlhfctl data clean --unused 30"))
def clean(
    unused: Annotated[
        float,
        typer.Option("--unused", metavar="DAYS", help="Only what was not used for as many days."),
    ] = 0.0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove the rows and token ids that are stored in the cache.

    The folder is $RLHFCTL_CACHE, by default ~/.cache/rlhfctl.
    """
    from rlhfctl.cli.data_rows import clean_data

    clean_data(unused, as_json=json, quiet=quiet)


def _mapping(columns: list[str]) -> dict[str, str]:
    """Return expected column -> column in the file.

    Raises:
        UsageError: An entry is not NAME=COLUMN.
    """
    mapping: dict[str, str] = {}
    for column in columns:
        name, equals, source = column.partition("=")
        if not (name and equals and source):
            raise UsageError(f"{column!r} is not NAME=COLUMN", "--columns")
        mapping[name] = source
    return mapping


def _shown(metrics: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a table of all annotators, then one row per annotator."""
    table = Table("metric", "value", "95 % CI", box=None, pad_edge=False)
    table.add_row("items", f"{metrics['items']:,}")
    table.add_row("labels", f"{metrics['labels']:,}")
    rows = [
        ("raw agreement", metrics, "agreement"),
        ("Krippendorff's alpha", metrics, "alpha"),
        ("Fleiss's kappa", metrics, "fleiss"),
        ("ceiling on accuracy", metrics.get("ceiling", {}), "accuracy"),
        ("intransitive triples", metrics.get("intransitive", {}), "share"),
    ]
    for title, section, name in rows:
        if name in section:
            interval = f"{section[f'{name}_low']:.3f} to {section[f'{name}_high']:.3f}"
            table.add_row(title, f"{section[name]:.3f}", interval)
    triples = metrics.get("intransitive", {})
    if triples.get("expected") is not None:
        table.add_row("  expected from noise", f"{triples['expected']:.3f}")
    majority = metrics.get("majority", {"labels": {}})
    for label, items in majority["labels"].items():
        table.add_row(f"majority {safe(label)}", f"{items:,}")
    if majority.get("none"):
        table.add_row("no majority", f"{majority['none']:,}")
    yield table
    if metrics["per_annotator"]:
        annotators = Table("annotator", "labels", "agreement", "accuracy", box=None, pad_edge=False)
        for name, scores in metrics["per_annotator"].items():
            annotators.add_row(
                safe(name),
                f"{scores['labels']:,}",
                *(
                    f"{scores[key]:.3f}" if key in scores else ""
                    for key in ("agreement", "accuracy")
                ),
            )
        yield ""
        yield annotators
    if metrics.get("cohen"):
        yield ""
        yield _cohen(metrics["cohen"])


def _cohen(pairs: list[dict[str, Any]]) -> Table:
    """Return a table of Cohen's kappa per pair of annotators."""
    table = Table("annotators", "items", "Cohen's kappa", "95 % CI", box=None, pad_edge=False)
    for pair in pairs[:_PAIRS_SHOWN]:
        names = safe(f"{pair['first']}, {pair['second']}")
        if "kappa" in pair:
            interval = f"{pair['kappa_low']:.3f} to {pair['kappa_high']:.3f}"
            table.add_row(names, f"{pair['items']:,}", f"{pair['kappa']:.3f}", interval)
        else:
            table.add_row(names, f"{pair['items']:,}", "undefined")
    if len(pairs) > _PAIRS_SHOWN:
        table.add_row(f"and {len(pairs) - _PAIRS_SHOWN} more pairs, with --json")
    return table
