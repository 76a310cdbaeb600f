"""Settings and fixtures that every test shares."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
# Tests must not read what earlier ones, or the user, have stored.
os.environ["RLHFCTL_CACHE"] = ""

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rlhfctl.recipe.schema import Recipe

T = TypeVar("T")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job's ignored SIGINT would pass on to the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


BOTH_CORES = (
    "stages/test_killed.py",
    "stages/test_processes.py",
    "cli/test_launch.py",
    "cli/test_sweep.py",
)
"""Files whose tests start several processes at a time; one worker runs them all."""

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
    "evaluation.tax_questions=32",
)
"""Overrides for a run of seconds; its reward model is too small to pass the preflight checks."""


def tiny_recipe(*overrides: str) -> Recipe:
    """Return the shipped recipe at a size of seconds."""
    from rlhfctl.recipe.load import load_recipe

    return load_recipe(BASE_RECIPE, [*TINY, *overrides]).recipe


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign tests to workers: one for both-core tests, one per file with module fixtures."""
    root = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(root).as_posix()
        own = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
        if path in BOTH_CORES:
            item.add_marker(pytest.mark.xdist_group("both-cores"))
        elif any(definitions[-1].scope == "module" for definitions in own.values()):
            item.add_marker(pytest.mark.xdist_group(path))


def once(folder: Path, make: Callable[[Path], T]) -> T:
    """Return ``make(folder)``, which runs in the first worker to ask and is read by the others.

    Args:
        folder: Created empty for `make`. A folder left by a failed attempt is removed first.
        make: Its result must be picklable.
    """
    result = folder.with_name(f"{folder.name}.pickle")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            result.write_bytes(pickle.dumps(make(folder)))
        made: T = pickle.loads(result.read_bytes())
        return made


GOLD_PAIRS = 600
"""Pairs of the embedded world that are drawn and ordered by the gold reward; 6,000 in a real run."""


@pytest.fixture(autouse=True, scope="session")
def fewer_gold_pairs() -> None:
    """A tenth of the pairs with the gold order, whose making took seconds in every process."""
    from rlhfctl.stages.shared import gold

    gold.GOLD_PAIRS_DRAWN = GOLD_PAIRS


@pytest.fixture(autouse=True)
def denormal_numbers() -> None:
    """Denormal numbers, which a stage of an earlier test has switched off in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this test session share."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def made_once(shared_root: Path) -> Callable[[str, Callable[[Path], T]], T]:
    """Make a named folder once per test session: ``made_once(name, make)`` returns its result."""
    return lambda name, make: once(shared_root / name, make)


class TinyRun:
    """The stages of a tiny run, each made on demand, once per test session."""

    def __init__(self, root: Path, *overrides: str) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.recipe = tiny_recipe(*overrides)
        self.metrics: dict[str, dict[str, Any]] = {}
        self.logged: dict[str, set[str]] = {}

    def stage(self, name: str) -> Path:
        """Return the folder of a finished stage; run the stage if necessary."""
        import importlib

        from rlhfctl.recipe.view import view
        from rlhfctl.run.monitor import NullMonitor
        from rlhfctl.stage_table import stage_named

        stage = stage_named(name)

        def make(output: Path) -> tuple[dict[str, Any], set[str]]:
            module = importlib.import_module(f"rlhfctl.stages.{stage.module}.stage")
            recipe = view(self.recipe, stage)
            names: set[str] = set()

            class Recorder(NullMonitor):
                def step(self, done: int, metrics: Mapping[str, float]) -> None:
                    names.update(metrics)

            return module.run(recipe, inputs, output, Recorder()).metrics, names

        if name not in self.metrics:
            inputs = {need: self.stage(need) for need in stage.accepts}
            self.metrics[name], self.logged[name] = once(self.root / name, make)
        return self.root / name


@pytest.fixture(scope="session")
def tiny_run(shared_root: Path) -> TinyRun:
    """A tiny run in single precision."""
    return TinyRun(shared_root / "tiny")


@pytest.fixture(scope="session")
def tiny_4bit_run(shared_root: Path) -> TinyRun:
    """A tiny run on a base in NF4."""
    return TinyRun(shared_root / "tiny4", "model.quantization=4bit")


@pytest.fixture(scope="session")
def tiny_full_run(shared_root: Path) -> TinyRun:
    """A tiny run of full fine-tuning, without adapters."""
    return TinyRun(
        shared_root / "tinyfull",
        "lora=null",
        "sft.learning_rate=1e-4",
        "reward_model.learning_rate=1e-4",
        "ppo.learning_rate=1e-5",
        "ppo.value_learning_rate=1e-5",
    )


@pytest.fixture(scope="session")
def finished_base(made_once: Callable[[str, Callable[[Path], Path]], Path]) -> Path:
    """A tiny random base with the embedded world's tokenizer."""
    from tests.finished_run import write_base

    return made_once("finished-base", write_base)


@pytest.fixture(scope="session")
def finished_run(
    made_once: Callable[[str, Callable[[Path], Path]], Path], finished_base: Path
) -> Path:
    """A run folder with random adapters on that base; tests must not change it."""
    from tests.finished_run import write_run

    return made_once("finished-run", lambda folder: write_run(folder / "small", finished_base))
