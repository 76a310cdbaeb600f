"""rlhfctl's side of each benchmark on a minimal workload."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks import decode, machine, ppo_vs_trl, ragged, roofline, scaling, sft_step  # noqa: E402
from benchmarks.checkpoints import make  # noqa: E402
from benchmarks.rlhfctl_ppo import run  # noqa: E402
from benchmarks.work import Work  # noqa: E402

MINUTE = Work(
    shape="minute",
    prompt_length=4,
    response_length=6,
    batch=4,
    minibatches=2,
    epochs=2,
    rollouts=2,
)


@pytest.fixture(scope="module", params=["full", "lora"])
def work(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    workload = MINUTE.but(lora=request.param == "lora")
    make(workload, folder)
    return workload, folder


def test_ppo_is_timed_by_rollout_and_by_phase(work):
    metrics = run(*work)
    assert len(metrics["seconds"]) == MINUTE.rollouts
    assert set(metrics["phases"]) == set(roofline.PHASES)
    assert all(0.0 < seconds < sum(metrics["seconds"]) for seconds in metrics["phases"].values())
    assert metrics["peak_bytes"] > 2**20 and metrics["start_bytes"] > 2**20


def test_sft_side_times_every_step(work):
    assert len(sft_step.run(*work)["seconds"]) == sft_step.STEPS


def test_bytes_per_decoding_step_count_weights_and_cache(work, monkeypatch):
    monkeypatch.setattr(machine, "read_bandwidth", lambda: 1e9)
    metrics = decode.measure(*work)
    # Keys and values of one layer, 4 sequences of 4 + 3 tokens, width 32; all weights; fp32.
    cached = 2 * 4 * 7 * 32
    weights = 4 * 32 * 32 + 3 * 32 * 64 + 64 * 32
    assert metrics["bytes_per_step"] == 4 * (cached + weights)
    assert 0.0 < metrics["share_of_generation"] < 1.0


def test_removing_finished_rows_does_not_change_responses(work):
    workload, folder = work
    metrics = ragged.measure(workload, folder, runs=1)
    assert metrics["same_responses"]
    assert 1.0 < metrics["mean_length"] < MINUTE.response_length
    assert set(metrics["seconds"]) == set(ragged.WAYS)


def test_operation_count_equals_torch_flop_counter():
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    from benchmarks.shapes import SHAPES

    model = AutoModelForCausalLM.from_config(SHAPES["minute"].config(), attn_implementation="eager")
    import torch

    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, MINUTE.length, dtype=torch.long))
    counted = counter.get_total_flops()
    one = MINUTE.but(batch=1, minibatches=1, rollouts=1, response_length=MINUTE.length)
    expected = roofline.phase_flops(one.but(prompt_length=0))["generation"]
    attention = 2 * 32 * MINUTE.length**2
    # torch counts the whole square of attention, of which a causal pass needs half.
    assert expected + attention == counted


def test_summary_uses_medians(work):
    workload, _ = work
    runs = [
        {"seconds": [s], "cpu_seconds": [s], "phases": {}, "peak_bytes": 2, "start_bytes": 1}
        for s in (1.0, 2.0, 100.0)
    ]
    assert ppo_vs_trl.summarise(workload, runs)["episodes_per_second"] == workload.episodes / 2.0


def test_scaling_plot_is_written(tmp_path):
    points = [
        {"axis": axis, "value": 8, "at": 8, "episodes_per_cpu_second": 1.0, "peak_bytes": 2**20}
        for axis in scaling.AXES
    ]
    scaling.plot(points, MINUTE, "CPU", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
