"""The `data agreement` command: inter-annotator agreement of a label file.

No postponed annotations here: Typer reads the types when a command is made.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from rlhfctl.console import Terminal, safe
from rlhfctl.errors import UsageError
from rlhfctl.results.io import to_json

app = typer.Typer(
    help="Check data before training.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _data() -> None:
    """Check data before training."""


@app.command()
def agreement(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A json, jsonl, csv or parquet file.")
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="OURS=THEIRS",
            help="Which column is which, such as annotator=worker_id. Repeatable.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """How far annotators agree, how reliable each is, and the ceiling on a reward model's accuracy.

    FILE has votes of several annotators on the same items: a row a choice (prompt, chosen,
    rejected, annotator) or a label (item, annotator, label); or a row an item with a votes mapping
    or list, or a column an annotator (label_NAME).
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


def _mapping(columns: list[str]) -> dict[str, str]:
    """Return our column -> theirs.

    Raises:
        UsageError: One of them is not OURS=THEIRS.
    """
    mapping: dict[str, str] = {}
    for column in columns:
        ours, equals, theirs = column.partition("=")
        if not (ours and equals and theirs):
            raise UsageError(f"{column!r} is not OURS=THEIRS", "--columns")
        mapping[ours] = theirs
    return mapping


def _shown(metrics: Mapping[str, Any]) -> Iterator[Any]:
    """Yield a table of all annotators, then one row per annotator."""
    table = Table("metric", "value", "95 % CI", box=None, pad_edge=False)
    table.add_row("items", f"{metrics['items']:,}")
    table.add_row("labels", f"{metrics['labels']:,}")
    rows = [
        ("raw agreement", metrics, "agreement"),
        ("Krippendorff's alpha", metrics, "alpha"),
        ("ceiling on accuracy", metrics.get("ceiling", {}), "accuracy"),
        ("intransitive triples", metrics.get("intransitive", {}), "share"),
    ]
    for title, section, name in rows:
        if name in section:
            interval = f"{section[f'{name}_low']:.3f} to {section[f'{name}_high']:.3f}"
            table.add_row(title, f"{section[name]:.3f}", interval)
    circles = metrics.get("intransitive", {})
    if circles.get("expected") is not None:
        table.add_row("  by noise alone", f"{circles['expected']:.3f}")
    yield table
    if metrics["per_annotator"]:
        people = Table("annotator", "labels", "agreement", "accuracy", box=None, pad_edge=False)
        for name, scores in metrics["per_annotator"].items():
            people.add_row(
                safe(name),
                f"{scores['labels']:,}",
                *(
                    f"{scores[key]:.3f}" if key in scores else ""
                    for key in ("agreement", "accuracy")
                ),
            )
        yield ""
        yield people
