"""A run with the optional parts of every result."""

from pathlib import Path

import pytest

from tests.conftest import TinyRun

RICH = (
    "reward_model.judge_share=0.3",
    "ppo.eval_rollouts=1",
    "evaluation.best_of_n=2",
    "evaluation.best_of_n_prompts=4",
)


@pytest.fixture(scope="session")
def rich_run(shared_root: Path) -> TinyRun:
    """A tiny run with a held-out reward model, best-of-n and held-out evaluations."""
    return TinyRun(shared_root / "rich", *RICH)
