import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfctl.evaluation.trial import Responses, judge, sample_rows
from rlhfctl.report.sources import RunFacts
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord

METRICS: dict[str, dict[str, Any]] = {
    "sft": {"eval_loss_before": 2.4, "eval_loss": 1.1, "train_rows": 18_000},
    "rm": {
        "accuracy": 0.76,
        "accuracy_low": 0.74,
        "accuracy_high": 0.78,
        "length_accuracy": 0.55,
        "pairs": 1400,
        "per_annotator": {
            "ada": {"accuracy": 0.8, "low": 0.75, "high": 0.85, "pairs": 200},
            "eve": {"accuracy": 0.7, "low": 0.65, "high": 0.75, "pairs": 200},
        },
    },
    "ppo": {"episodes": 1280, "score": 1.2, "kl": 6.0, "skipped_minibatches": 0},
}
INPUTS: dict[str, tuple[str, ...]] = {"sft": (), "rm": ("sft",), "ppo": ("sft", "rm")} | {
    "eval": ("sft", "rm", "ppo")
}


def record(stage: str, metrics: dict[str, Any], **changes: Any) -> StageRecord:
    """A finished stage whose inputs are what the stages before it made."""
    fields: dict[str, Any] = {
        "stage": stage,
        "recipe_part": {"model": {"name_or_path": "embedded"}, "ppo": {"kl_alarm": 25.0}},
        "inputs": {name: Artifact(name, f"hash-{name}") for name in INPUTS[stage]},
        "outputs": {stage: Artifact(stage, f"hash-{stage}")},
        "metrics": metrics,
        "versions": {"python": "3.11.9", "trl": "1.16.0"},
        "seed": 7,
        "started": "2026-11-23T15:00:00+00:00",
        "seconds": 61.0,
    }
    return StageRecord(**fields | changes)


def responses(count: int, proxy: float, gold: float, kl: float) -> Responses:
    """Responses around given means."""
    generator = np.random.default_rng(0)
    return Responses(
        texts=[f"answer number {index}" for index in range(count)],
        kl=np.full(count, kl),
        lengths=np.full(count, 4),
        ended=np.ones(count),
        proxy=proxy + generator.normal(size=count),
        gold=gold + generator.normal(size=count),
    )


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(root: Path, stages: tuple[str, ...]) -> Path:
    """A run folder in which these stages are finished."""
    policies = {"sft": responses(60, 0, 0, 0.0), "ppo": responses(60, 2, 2, 6.0)}
    figures = judge(policies, ngram=3, seed=0)
    manifest = Manifest()
    for stage in stages:
        manifest = manifest.with_stage(record(stage, METRICS.get(stage, figures)))
    steps = [{"step": 128 * (index + 1), "loss": 2.0 - index / 10} for index in range(10)]
    for stage in stages[:2]:
        write_lines(root / "logs" / f"{stage}.jsonl", steps)
    if "ppo" in stages:
        rollouts = [step | {"score": 0.1, "kl": 1.0, "kl_k3": 1.1, "beta": 0.05} for step in steps]
        write_lines(root / "logs" / "ppo.jsonl", rollouts)
        kept = {"episode": 128, "prompt": "p", "response": "kept on the way", "score": 1, "kl": 2}
        write_lines(root / "ppo" / "samples.jsonl", [kept])
    if "eval" in stages:
        rows = sample_rows([f"question {index}" for index in range(60)], policies, 12)
        write_lines(root / "eval" / "samples.jsonl", rows)
        (root / "eval" / "figures.json").write_text(json.dumps(figures))
    root.mkdir(exist_ok=True)
    (root / "recipe.yaml").write_text("name: trial\nseed: 7\n")
    manifest.save(root / "manifest.json")
    return root


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make `tmp_path/trial` with the given stages finished."""
    return lambda *stages: write_run(tmp_path / "trial", stages)


@pytest.fixture
def finished_run(make_run: Callable[..., Path]) -> Path:
    """A run with all four stages finished."""
    return make_run("sft", "rm", "ppo", "eval")


@pytest.fixture
def make_record() -> Callable[..., StageRecord]:
    """Make a finished stage's record."""
    return record


@pytest.fixture
def make_facts() -> Callable[..., RunFacts]:
    """Make the facts of a run that has these figures and nothing else but what is given."""

    def make(figures: dict[str, Any] | None = None, **fields: Any) -> RunFacts:
        blank: dict[str, Any] = {"records": {}, "curves": {}, "samples": [], "training_samples": []}
        return RunFacts(**{"name": "r", "recipe": "", "figures": figures or {}} | blank | fields)

    return make
