"""Each tracker's own offline mode, read back by its own reader; skipped where it isn't installed."""

import os
import struct
import subprocess
import sys
from importlib.util import find_spec

import pytest

from rlhfctl.run.trackers import SampleTable, markdown

LOG = """
import os
import sys
from pathlib import Path

from rlhfctl.run import tracking
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.run.trackers import Address, Conclusion, SampleTable
from rlhfctl.run.tracking import TrackerMonitor


class Failing(NullMonitor):
    def warn(self, message):
        print(message, file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    tracking.START_TIMEOUT = 200.0
    folder = Path.cwd()
    Path("report.html").write_text("<p>A report</p>", encoding="utf-8")
    settings = {"seed": 3, "ppo.beta": 0.05, "lora.target_modules": ["q", "v"], "ppo.rm": None}
    for stage in ("ppo", "eval"):
        address = Address("rlhfctl", "base", stage, folder)
        monitor = TrackerMonitor([sys.argv[1]], address, settings, Failing())
        monitor.start(stage, 2, "episodes")
        monitor.step(1, {"kl": 0.5})
        monitor.step(2, {"kl": 0.75})
        table = SampleTable(("prompt", "score"), [("a|b\\nc", 1.5), ("d", None)])
        if stage == "ppo":
            monitor.conclude(Conclusion({"result.kl": 0.875}, table))
        else:
            monitor.conclude(Conclusion({"win_rate": 0.75}, table, "PPO wins.", Path("report.html")))
        monitor.close()
"""


def logged(tracker, folder, **environment):
    """Log two stages to a tracker in a process of its own."""
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    home = {"HOME": str(folder), "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [sys.executable, "-c", LOG, tracker],
        cwd=folder,
        env={**os.environ, **home, **environment},
        check=True,
        timeout=240,
    )


def test_tensorboard(tmp_path):
    logged("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard" / "eval"))
    events.Reload()
    steps = [(event.step, event.value) for event in events.Scalars("eval/kl")]
    assert steps == [(1, 0.5), (2, 0.75)]
    assert events.Scalars("final/win_rate")[0].value == 0.75
    texts = {
        name: events.Tensors(f"eval/{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("verdict", "samples", "report")
    }
    assert texts["verdict"] == "PPO wins."
    assert "| a&#124;b<br>c | 1.5 |" in texts["samples"]
    assert texts["report"] == "report.html"
    assert (tmp_path / "tensorboard" / "ppo").is_dir()


def test_mlflow(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logged("mlflow", tmp_path, MLFLOW_TRACKING_URI=uri)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "rlhfctl")
    runs = {run.data.tags["stage"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"ppo", "eval"}
    evaluation = runs["eval"]
    assert evaluation.info.status == "FINISHED"
    assert evaluation.info.run_name == "base-eval"
    assert evaluation.data.tags["group"] == "base"
    assert evaluation.data.tags["verdict"] == "PPO wins."
    assert evaluation.data.params["ppo.beta"] == "0.05"
    assert evaluation.data.params["lora.target_modules"] == "['q', 'v']"
    assert evaluation.data.metrics["final/win_rate"] == 0.75
    history = client.get_metric_history(evaluation.info.run_id, "eval/kl")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.75)]
    files = {file.path for file in client.list_artifacts(evaluation.info.run_id)}
    assert files == {"report.html", "samples.json"}


def test_trackio(tmp_path):
    logged("trackio", tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    read = """
import json
from trackio.sqlite_storage import SQLiteStorage as storage
for run in sorted(storage.get_runs("rlhfctl")):
    print(json.dumps([run, storage.get_run_config("rlhfctl", run), storage.get_logs("rlhfctl", run)]))
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", read], capture_output=True, text=True, check=True, env=environment
    )
    evaluation, ppo = shown.stdout.splitlines()
    assert '"base-ppo"' in ppo
    assert '"base-eval"' in evaluation
    assert '"_Group": "base"' in evaluation
    assert '"ppo.beta": 0.05' in evaluation
    assert '"eval/kl": 0.75' in evaluation
    assert '"final/win_rate": 0.75' in evaluation
    assert "PPO wins." in evaluation
    assert '"trackio.table"' in evaluation
    assert '"trackio.html"' in evaluation


def wandb_records(path):
    """Yield the records of a `.wandb` file: LevelDB's log format after a header of its own."""
    data, place, parts = path.read_bytes(), 7, []
    while place + 7 <= len(data):
        left_in_block = 32_768 - place % 32_768
        if left_in_block < 7:
            place += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts.append(data[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in {1, 4}:  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_wandb(tmp_path):
    logged("wandb", tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    from wandb.proto.wandb_internal_pb2 import Record

    runs = {}
    for path in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        records = [Record.FromString(record) for record in wandb_records(path)]
        run = next(record.run for record in records if record.HasField("run"))
        runs[run.display_name] = (run, records)
    assert set(runs) == {"ppo", "eval"}
    run, records = runs["eval"]
    assert (run.project, run.run_group) == ("rlhfctl", "base")
    text = "\n".join(map(str, records))
    assert "ppo.beta" in text
    assert "PPO wins." in text
    for name in ("eval/kl", "eval/samples", "eval/report", "final/win_rate"):
        assert name in text, name
    media = {path.name.partition("_")[0] for path in tmp_path.rglob("media/*/eval/*")}
    assert media == {"samples", "report"}


def test_cells_of_a_table_stay_cells():
    table = SampleTable(("a", "b"), [("x|y\nz", None), ("| --- |", 1.0)])
    assert markdown(table).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x&#124;y<br>z |  |",
        "| &#124; --- &#124; | 1.0 |",
    ]
