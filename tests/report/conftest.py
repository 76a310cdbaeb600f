import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from rlhfctl.evaluation.policies import Responses, compare_policies, samples
from rlhfctl.report import comparison, sweep
from rlhfctl.report.page import render
from rlhfctl.report.sources import RunFacts, read_run
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.results.io import from_json, to_json
from rlhfctl.results.samples import TrainingSample
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from tests.report import shapes
from tests.report.loaded_page import LAUNCH_OPTIONS, find_chromium

METRICS: dict[str, dict[str, Any]] = {
    "sft": to_json(shapes.sft_result()),
    "rm": to_json(shapes.rm_result()),
    "ppo": to_json(shapes.ppo_result()),
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
        "repositories": {"data.prompts.source": "org/questions@0123abcd"},
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
    metrics = to_json(EvaluationResult(60, *compare_policies(policies, ngram=3, seed=0)))
    manifest = Manifest()
    for stage in stages:
        manifest = manifest.with_stage(record(stage, METRICS.get(stage, metrics)))
    steps = [{"step": 128 * (index + 1), "loss": 2.0 - index / 10} for index in range(10)]
    for stage in stages[:2]:
        write_lines(root / "logs" / f"{stage}.jsonl", steps)
    if "ppo" in stages:
        rollouts = [step | {"score": 0.1, "kl": 1.0, "kl_k3": 1.1, "beta": 0.05} for step in steps]
        write_lines(root / "logs" / "ppo.jsonl", rollouts)
        kept = TrainingSample(128, "p", "kept on the way", 1.0, 2.0, ended=True)
        write_lines(root / "ppo" / "samples.jsonl", [to_json(kept)])
    if "eval" in stages:
        rows = samples([f"question {index}" for index in range(60)], policies, 12)
        write_lines(root / "eval" / "samples.jsonl", [to_json(row) for row in rows])
        (root / "eval" / "metrics.json").write_text(json.dumps(metrics))
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


def judge_whole(root: Path) -> Path:
    """Add to a finished run all that it can be judged by."""
    file = root / "eval" / "metrics.json"
    result = from_json(EvaluationResult, json.loads(file.read_text()), str(file))
    file.write_text(json.dumps(to_json(shapes.judged(result))))
    write_lines(root / "ppo" / "held_out.jsonl", [to_json(line) for line in shapes.HELD_OUT])
    summary = root / "ppo" / "over_optimisation.json"
    summary.write_text(json.dumps(to_json(shapes.OVER_OPTIMISATION)))
    return root


@pytest.fixture
def judged_run(finished_run: Path) -> Path:
    """A finished run with the metrics of every part."""
    return judge_whole(finished_run)


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    """A sweep's folder."""
    root = tmp_path / "swept"
    root.mkdir()
    (root / "sweep.json").write_text(json.dumps(to_json(shapes.SWEEP)))
    return root


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, written once; text of models in them is hostile."""
    folder = tmp_path_factory.mktemp("pages")
    root = judge_whole(write_run(folder / "trial", (*METRICS, "eval")))
    samples = root / "eval" / "samples.jsonl"
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    hostile = {"sft": shapes.HOSTILE, "ppo": shapes.HOSTILE}
    scores = {"sft": {"proxy": 0.0, "gold": 1.0}, "ppo": {"proxy": 1.0, "gold": 0.0}}
    rows[8] |= {"prompt": f"needle {shapes.HOSTILE}", **hostile, "scores": scores}
    write_lines(samples, rows)
    other = folder / "other"
    shutil.copytree(root, other)
    (other / "recipe.yaml").write_text("name: other\nseed: 8\nmodel: {dtype: bfloat16}\n")
    (folder / "sweep.json").write_text(json.dumps(to_json(shapes.SWEEP)))
    written = {
        "report": render(root),
        "comparison": comparison.html([read_run(root), read_run(other)]),
        "sweep": sweep.html(sweep.read(folder)),
    }
    for name, html in written.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in written}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the session; without one the tests that need it are skipped."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium: `make browser` installs one, RLHFCTL_CHROMIUM names one")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(LAUNCH_OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def make_record() -> Callable[..., StageRecord]:
    """Make a finished stage's record."""
    return record


@pytest.fixture
def make_facts() -> Callable[..., RunFacts]:
    """Make the facts of a run that has nothing but what is given."""

    def make(evaluation: EvaluationResult | None = None, **fields: Any) -> RunFacts:
        blank: dict[str, Any] = {"name": "r", "recipe": "", "records": {}, "curves": {}}
        return RunFacts(**blank | {"evaluation": evaluation} | fields)

    return make
