"""Settings and fixtures that every test shares."""

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job's ignored SIGINT would pass on to the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

for helpers in ("reference", "ppo", "report"):
    sys.path.insert(0, str(Path(__file__).parent / helpers))

BASE_RECIPE = Path(__file__).parent.parent / "recipes" / "base.yaml"
TINY = (
    "data.demonstrations.max_rows=96",
    "data.comparisons.max_rows=96",
    "data.prompts.max_rows=160",
    "reward_model.calibration_samples=32",
    "ppo.episodes=32",
    "ppo.rollout_batch_size=16",
    "ppo.minibatch_size=8",
    "ppo.forward_batch_size=8",
    "generation.max_new_tokens=16",
    "ppo.gate=warn",
    "evaluation.num_prompts=12",
)
"""What makes a run of seconds of the shipped recipe; the reward model is too small to pass a gate."""


def tiny_recipe(*overrides):
    """Return the shipped recipe at a size of seconds."""
    from rlhfctl.recipe.load import load_recipe

    return load_recipe(BASE_RECIPE, [*TINY, *overrides]).recipe


class TinyRun:
    """The stages of a tiny run, each made once a test session and only when asked for."""

    def __init__(self, root, *overrides):
        self.root = root
        self.recipe = tiny_recipe(*overrides)
        self.metrics = {}
        self.logged = {}

    def stage(self, name):
        """Return the folder of a stage, which runs first if it has not yet."""
        import importlib

        from rlhfctl.recipe.view import view
        from rlhfctl.run.monitor import NullMonitor
        from rlhfctl.stage_table import stage_named

        stage, output = stage_named(name), self.root / name
        if not output.is_dir():
            inputs = {need: self.stage(need) for need in stage.accepts}
            output.mkdir()
            module = importlib.import_module(f"rlhfctl.stages.{stage.module}.stage")
            recipe = view(self.recipe, stage)
            names = self.logged[name] = set()

            class Recorder(NullMonitor):
                def step(self, done, metrics):
                    names.update(metrics)

            self.metrics[name] = module.run(recipe, inputs, output, Recorder()).metrics
        return output


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A tiny run in single precision."""
    return TinyRun(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_4bit_run(tmp_path_factory):
    """A tiny run on a base in NF4."""
    return TinyRun(tmp_path_factory.mktemp("tiny4"), "model.quantization=4bit")


@pytest.fixture(scope="session")
def tiny_full_run(tmp_path_factory):
    """A tiny run of full fine-tuning, without adapters."""
    return TinyRun(
        tmp_path_factory.mktemp("tinyfull"),
        "lora=null",
        "sft.learning_rate=1e-4",
        "reward_model.learning_rate=1e-4",
        "ppo.learning_rate=1e-5",
        "ppo.value_learning_rate=1e-5",
    )
