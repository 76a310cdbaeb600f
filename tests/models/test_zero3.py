"""A base spread by ZeRO-3 over two gloo processes computes as a whole one, a layer at a time."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="rlhfctl[deepspeed] is not installed"
)
SCRIPT = Path(__file__).with_name("spread_processes.py")
PROCESSES = 2


@pytest.fixture(scope="module", params=range(PROCESSES))
def found(request, both):
    return both[request.param]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each process found."""
    output, extensions = (tmp_path_factory.mktemp(name) for name in ("spread", "extensions"))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(output)],
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TORCH_EXTENSIONS_DIR": str(extensions),
        },
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not list(extensions.iterdir()), "no compiler is needed"
    return [json.loads((output / f"{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.parametrize("how", ["plain", "again", "checkpointed", "whole"])
def test_loss_and_gradients_are_those_of_the_whole_base(found, how):
    assert found[how] == 0


def test_each_process_keeps_its_share_of_the_layers(found):
    assert found["share"] == pytest.approx(3 * found["layer"] / PROCESSES, rel=0.01)


def test_one_layer_is_whole_at_a_time_forward_and_backward(found):
    assert found["most_whole"] == found["layer"]


def test_a_graph_keeps_no_weights_for_its_backward_pass(found):
    """Beside those of the layer that happens to be whole."""
    assert found["weights_alive"] <= found["weights_a_layer"]


def test_adapters_are_whole_in_every_process(both):
    assert both[0]["adapters"] == both[1]["adapters"] > 0
