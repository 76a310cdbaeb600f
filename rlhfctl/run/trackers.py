"""The trackers: project, group, name, settings, metrics, table and page in the terms of each.

A run of rlhfctl is a group of the project, and each of its stages is a run of that group.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Setting = str | int | float | bool

_FINAL = "final"
"""Prefix of final metrics."""


@dataclass(frozen=True)
class Address:
    """The place of a stage in a tracker.

    Attributes:
        project: Project, or experiment.
        run: Name of the run of rlhfctl.
        stage: Name of the stage.
        folder: Folder for trackers that write files.
    """

    project: str
    run: str
    stage: str
    folder: Path


@dataclass(frozen=True)
class SampleTable:
    """Sampled responses: a name per column, and rows of texts and numbers."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | float | None]]


@dataclass(frozen=True)
class Conclusion:
    """The result of a finished stage.

    Attributes:
        metrics: Final metrics by dotted name.
        samples: Sampled responses; None without any.
        verdict: The report's verdict; empty without one.
        report: The report page; None without one.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: SampleTable | None = None
    verdict: str = ""
    report: Path | None = None


class Tracker(Protocol):
    """A started tracker; every method is called in the thread that started it."""

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Log the recipe's values by dotted key."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step."""

    def conclude(self, conclusion: Conclusion) -> None:
        """Log the result of the finished stage."""

    def finish(self) -> None:
        """End the tracker's run."""


def open_tracker(name: str, address: Address) -> Tracker:
    """Start a tracker.

    Raises:
        ModuleNotFoundError: Its package is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"not installed; pip install 'rlhfctl[{name}]'", name=name)
    return TRACKERS[name](address)


def _final(conclusion: Conclusion) -> dict[str, float]:
    return {f"{_FINAL}/{key}": value for key, value in conclusion.metrics.items()}


class TensorBoard:
    """A folder per stage in the run's logs. It has neither groups nor files."""

    def __init__(self, address: Address) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._stage = address.stage
        folder = address.folder / "tensorboard" / address.stage
        self._writer = SummaryWriter(str(folder))

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Log the settings as hyperparameters."""
        self._writer.add_hparams(dict(settings), {}, run_name=".")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def conclude(self, conclusion: Conclusion) -> None:
        """Log final metrics, and the rest as texts; of the report, its path."""
        self.log(_final(conclusion), 0)
        texts = {
            "verdict": conclusion.verdict,
            "samples": markdown(conclusion.samples) if conclusion.samples else "",
            "report": str(conclusion.report or ""),
        }
        for name, text in texts.items():
            if text:
                self._writer.add_text(f"{self._stage}/{name}", text, 0)

    def finish(self) -> None:
        """Close the files."""
        self._writer.close()


def markdown(table: SampleTable) -> str:
    """Return a table in Markdown; line breaks and bars within a cell are escaped."""
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = []
    for row in rows:
        cells = ("" if cell is None else str(cell).replace("|", "&#124;") for cell in row)
        lines.append(f"| {' | '.join(cells)} |".replace("\r", " ").replace("\n", "<br>"))
    return "\n".join(lines)


class WeightsAndBiases:
    """A run of the group; in WANDB_PROJECT, where that is set."""

    def __init__(self, address: Address) -> None:
        import wandb

        self._stage = address.stage
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or address.project,
            group=address.run,
            name=address.stage,
            job_type=address.stage,
            dir=str(address.folder),
        )
        # The phases of a stage count anew, and steps of wandb's own must rise.
        self._run.define_metric(f"{self._stage}/*", step_metric=f"{self._stage}/step")

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Log the settings as the run's configuration."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step."""
        self._run.log({**metrics, f"{self._stage}/step": step})

    def conclude(self, conclusion: Conclusion) -> None:
        """Log final metrics and verdict in the summary, samples as a table, the report as a page."""
        import wandb

        self._run.summary.update(_final(conclusion))
        if conclusion.verdict:
            self._run.summary["verdict"] = conclusion.verdict
        if (table := conclusion.samples) is not None:
            rows = [list(row) for row in table.rows]
            value = wandb.Table(columns=list(table.columns), data=rows)
            self._run.log({f"{self._stage}/samples": value})
        if conclusion.report is not None:
            page = conclusion.report.read_text(encoding="utf-8")
            self._run.log({f"{self._stage}/report": wandb.Html(page, inject=False)})

    def finish(self) -> None:
        """End the run."""
        self._run.finish()


class MLflow:
    """A run in the experiment, tagged with its group; in MLFLOW_EXPERIMENT_NAME, if that is set."""

    _MOST_PARAMETERS = 100
    _LONGEST_PARAMETER = 6000

    def __init__(self, address: Address) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or address.project)
        tags = {"group": address.run, "stage": address.stage}
        mlflow.start_run(run_name=f"{address.run}-{address.stage}", tags=tags)

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Log the settings as parameters, as many at a time as MLflow takes."""
        items = [(key, str(value)[: self._LONGEST_PARAMETER]) for key, value in settings.items()]
        for start in range(0, len(items), self._MOST_PARAMETERS):
            self._mlflow.log_params(dict(items[start : start + self._MOST_PARAMETERS]))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step."""
        self._mlflow.log_metrics(dict(metrics), step=step)

    def conclude(self, conclusion: Conclusion) -> None:
        """Log final metrics, the verdict as a tag, and samples and report as artifacts."""
        self.log(_final(conclusion), 0)
        if conclusion.verdict:
            self._mlflow.set_tag("verdict", conclusion.verdict)
        if (table := conclusion.samples) is not None and table.rows:
            columns = map(list, zip(*table.rows, strict=True))
            self._mlflow.log_table(dict(zip(table.columns, columns, strict=True)), "samples.json")
        if conclusion.report is not None:
            self._mlflow.log_artifact(str(conclusion.report))

    def finish(self) -> None:
        """End the run."""
        self._mlflow.end_run()


class Trackio:
    """A run of the group on this machine, or in a private Space if TRACKIO_SPACE_ID names one."""

    def __init__(self, address: Address) -> None:
        import trackio

        self._stage = address.stage
        self._run = trackio.init(
            project=address.project,
            group=address.run,
            name=f"{address.run}-{address.stage}",
            private=True,
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def configure(self, settings: Mapping[str, Setting]) -> None:
        """Log the settings as the run's configuration."""
        self._run.config.update(dict(settings))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of one step."""
        self._run.log(dict(metrics), step=step)

    def conclude(self, conclusion: Conclusion) -> None:
        """Log final metrics, verdict, samples as a table and the report as a page."""
        import pandas as pd
        import trackio

        values: dict[str, object] = dict(_final(conclusion))
        if conclusion.verdict:
            values[f"{self._stage}/verdict"] = trackio.Markdown(conclusion.verdict)
        if (table := conclusion.samples) is not None:
            frame = pd.DataFrame(list(map(list, table.rows)), columns=list(table.columns))
            values[f"{self._stage}/samples"] = trackio.Table(dataframe=frame)
        if conclusion.report is not None:
            values[f"{self._stage}/report"] = trackio.Html(conclusion.report)
        self._run.log(values)

    def finish(self) -> None:
        """End the run, once everything is written."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Address], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""Name in the recipe, which is the module's too -> the tracker."""
