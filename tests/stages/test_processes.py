"""Two processes over gloo train as one does with the whole batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhfctl.recipe.load import dump_recipe
from tests import forked
from tests.stages.two_processes import train

TIMES = ("seconds", "per_second", "memory_bytes")
# Sums over processes differ from those of one by the order of adding, in single precision.
ROUNDING = 1e-5


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return str(server.getsockname()[1])


@pytest.fixture(scope="module")
def both(tiny_run, tmp_path_factory):
    """Results of one process and of two, from the same recipe and checkpoints."""
    root = tmp_path_factory.mktemp("processes")
    inputs = (tiny_run.stage("sft"), tiny_run.stage("rm"))
    joint = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": free_port(),
    }
    ranks = [joint | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    calls = [((root / "two", *inputs), rank) for rank in ranks]
    forked.together(train, [*calls, ((root / "one", *inputs), {})], root)
    return root / "one", root / "two"


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def steady(metrics):
    return {name: v for name, v in metrics.items() if not name.endswith(TIMES)}


@pytest.mark.parametrize("bandit", ["bandit", "head_bandit"])
def test_the_bandit_learns_the_same(both, bandit):
    one, two = map(metrics_of, both)
    for name in ("logits", "value"):
        torch.testing.assert_close(
            torch.tensor(two[bandit][name]),
            torch.tensor(one[bandit][name]),
            atol=ROUNDING,
            rtol=ROUNDING,
        )


@pytest.mark.parametrize("stage", ["bandit", "head_bandit", "sft", "rm", "ppo"])
def test_every_figure_of_every_step_is_the_same(both, stage):
    one, two = (metrics_of(folder)["steps"][stage] for folder in both)
    assert len(one) == len(two) > 1
    for alone, shared in zip(one, two, strict=True):
        assert steady(shared) == pytest.approx(steady(alone), rel=1e-4, abs=ROUNDING)


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_every_figure_of_the_result_is_the_same(both, stage):
    one, two = (metrics_of(folder)["metrics"][stage] for folder in both)
    for name in ("per_annotator", "gate"):
        assert one.pop(name, None) == two.pop(name, None)
    for metrics in (one, two):
        result = metrics.pop("result", {})
        # The bounds of a bootstrap over three prompts jump where two resamples' means swap by rounding.
        metrics.update(
            {
                f"result.{key}": value
                for key, value in result.items()
                if not key.endswith(("_low", "_high"))
            }
        )
        metrics.pop("over_optimisation", None)  # made of the looks, which are compared below
    assert steady(two) == pytest.approx(steady(one), rel=1e-4, abs=ROUNDING)


def test_every_look_at_held_out_prompts_is_the_same(both):
    """Three prompts among two processes: one is answered twice, and counted once."""
    one, two = (
        [json.loads(line) for line in (root / "ppo" / "held_out.jsonl").read_text().splitlines()]
        for root in both
    )
    assert len(one) == len(two) == 3
    for alone, shared in zip(one, two, strict=True):
        assert shared.keys() == alone.keys()
        for name, values in alone["each"].items():
            assert len(values) == 3
            assert shared["each"][name] == pytest.approx(values, rel=1e-4, abs=ROUNDING)


@pytest.mark.parametrize("folder", ["sft", "rm", "ppo", "ppo/critic"])
def test_every_weight_is_the_same_and_written_once(both, folder):
    one, two = (load_file(root / folder / "adapter_model.safetensors") for root in both)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=ROUNDING / 10, rtol=0)
    moved = max(float(weight.abs().max()) for name, weight in one.items() if "lora_B" in name)
    assert moved > 100 * ROUNDING, "something was learnt that could differ"
    names = [{p.name for p in (root / folder).iterdir()} for root in both]
    assert names[0] == names[1]


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_a_sharded_base_changes_no_metric(both, stage):
    whole = metrics_of(both[1])
    sharded = whole["fsdp2"]
    assert steady(sharded["metrics"][stage]) == steady(whole["metrics"][stage])
    steps = [list(map(steady, found["steps"][stage])) for found in (whole, sharded)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("folder", ["sft", "rm", "ppo", "ppo/critic"])
def test_a_sharded_base_changes_no_bit(both, folder):
    _, two = both
    name = Path(folder) / "adapter_model.safetensors"
    assert (two / "fsdp2" / name).read_bytes() == (two / name).read_bytes()
    files = [{p.name for p in (root / folder).iterdir()} for root in (two, two / "fsdp2")]
    assert files[0] == files[1]


def test_training_on_a_sharded_base_resumes_from_a_checkpoint(both):
    _, two = both
    name = "adapter_model.safetensors"
    assert (two / "fsdp2" / "resumed" / name).read_bytes() == (two / "sft" / name).read_bytes()


def test_the_trainer_leaves_a_sharded_model_to_our_own_wrapper(both):
    """transformers' `_wrap_model` is private: where it is no longer called, this is seen here."""
    trainings = 2 + 2  # SFT, reward model; SFT cut and resumed
    assert metrics_of(both[1])["fsdp2"]["wrapped"] == trainings


@pytest.mark.slow
def test_a_whole_run_on_a_sharded_base(tiny_run, tmp_path):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny_run.recipe))
    rows = [{"prompt": f"{n}?", "chosen": f"{n}!", "rejected": "No."} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = (
        *("--set", "data.comparisons.source=pairs.jsonl", "--set", "reward_model.judge_share=0.4"),
        *("--set", "sft.gradient_checkpointing=true"),
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rlhfctl", "run", "recipe.yaml", "--run", "sharded"),
            *("--runs-dir", ".", "--launch", "fsdp2", "--json", *settings),
        ],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [stage["stage"] for stage in json.loads(done.stdout)["stages"]] == [
        *("sft", "rm", "ppo", "eval")
    ]
    assert (tmp_path / "sharded" / "rm" / "judge" / "adapter_model.safetensors").is_file()
