import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import compare_runs


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_run(run, *, new_names, score=0.5, bias=0.0, seconds=1.0):
    true_reward = "true_reward" if new_names else "stand_in"
    metrics_file = "metrics.json" if new_names else "figures.json"
    manifest = {
        "sft": {"started": "now", "seconds": seconds, "metrics": {"loss": 2.0, "nan": None}}
    }
    write_json(run / "manifest.json", {"stages": manifest})
    write_json(run / "rm" / metrics_file, {"accuracy": float("nan"), "pairs": 15})
    write_json(run / "rm" / "judge" / metrics_file, {"accuracy": 0.5})
    write_json(
        run / "logs" / "ppo.jsonl",
        {"step": 1, f"held_out_{true_reward}": score, "held_out_seconds": seconds},
    )
    write_json(run / "ppo" / "over_optimisation.json", {"alarms": [{"key": true_reward}]})
    for folder in ("sft", "rm/judge", "ppo/critic", "ppo/best"):
        (run / folder).mkdir(parents=True, exist_ok=True)
        weights = {"weight": torch.ones(2, 3), "bias": torch.tensor([bias])}
        save_file(weights, run / folder / "adapter_model.safetensors")
    return run


@pytest.fixture
def compare(capsys):
    def run(old, new):
        status = compare_runs.main([str(old), str(new)])
        told = capsys.readouterr()
        return status, told.out.splitlines(), told.err

    return run


@pytest.fixture
def old(tmp_path):
    return write_run(tmp_path / "old", new_names=False)


def test_equal_runs_are_equal_under_new_names_whatever_their_durations(compare, old, tmp_path):
    new = write_run(tmp_path / "new", new_names=True, seconds=9.0)
    status, lines, _ = compare(old, new)
    assert status == 0
    assert lines == ["4 weight files, 5 metric files: 0 differ"]


def test_a_changed_metric_and_a_flipped_sign_bit_are_named(compare, old, tmp_path):
    new = write_run(tmp_path / "new", new_names=True, score=0.5000000000000001, bias=-0.0)
    status, lines, _ = compare(old, new)
    assert status == 1
    files = ("ppo/best", "ppo/critic", "rm/judge", "sft")
    assert lines == [
        *(f"{file}/adapter_model.safetensors bias: tensors differ" for file in files),
        "logs/ppo.jsonl [0].held_out_true_reward: 0.5 -> 0.5000000000000001",
        "4 weight files, 5 metric files: 5 differ",
    ]


@pytest.mark.parametrize("file", ["ppo/critic/adapter_model.safetensors", "rm/judge/metrics.json"])
def test_a_missing_file_is_a_difference(compare, old, tmp_path, file):
    new = write_run(tmp_path / "new", new_names=True)
    (new / file).unlink()
    status, lines, _ = compare(old, new)
    assert status == 1
    assert lines[0] == f"{file}: only in the old run"


def test_a_missing_metric_is_a_difference(compare, old, tmp_path):
    new = write_run(tmp_path / "new", new_names=True)
    write_json(new / "rm" / "metrics.json", {"accuracy": float("nan")})
    status, lines, _ = compare(old, new)
    assert status == 1
    assert lines[0] == "rm/metrics.json [0].pairs: only in the old run"


def test_a_folder_without_a_run_is_refused(compare, tmp_path):
    status, lines, message = compare(tmp_path, tmp_path)
    assert (status, lines) == (2, [])
    assert "no weights or no metrics" in message
