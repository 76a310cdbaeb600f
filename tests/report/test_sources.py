from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.report.sources import MOST_SAMPLES, read_run
from rlhfctl.stage_table import SFT


def test_a_run_is_read_whole(finished_run: Path) -> None:
    facts = read_run(finished_run)
    assert facts.name == "trial"
    assert list(facts.records) == ["sft", "rm", "ppo", "eval"]
    assert len(facts.curves["ppo"]) == 10
    assert facts.evaluation["prompts"] == 60
    assert len(facts.samples) == 12
    assert facts.training_samples[0]["response"] == "kept on the way"
    assert facts.recipe.startswith("name: trial")


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    facts = read_run(tmp_path)
    assert not (facts.records or facts.evaluation or facts.samples or facts.recipe)
    assert facts.stage_metrics(SFT) == {}


def test_metrics_of_the_manifest_serve_where_the_file_is_gone(finished_run: Path) -> None:
    (finished_run / "eval" / "metrics.json").unlink()
    assert read_run(finished_run).evaluation["prompts"] == 60


def test_a_page_holds_a_bounded_number_of_samples(make_run: Callable[..., Path]) -> None:
    root = make_run("sft")
    (root / "eval").mkdir()
    (root / "eval" / "samples.jsonl").write_text('{"prompt": "p"}\n' * 500)
    assert len(read_run(root).samples) == MOST_SAMPLES


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "logs/ppo.jsonl", "eval/metrics.json", "eval/samples.jsonl"],
)
def test_a_damaged_file_is_named(finished_run: Path, name: str) -> None:
    (finished_run / name).write_bytes(b"\xff{ not json\n" * 3)
    with pytest.raises(CheckpointError) as raised:
        read_run(finished_run)
    assert raised.value.where == str(finished_run / name)
    assert raised.value.hint


def test_metrics_that_are_no_object_are_damaged(finished_run: Path) -> None:
    (finished_run / "eval" / "metrics.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="no JSON object"):
        read_run(finished_run)


def test_no_run_folder_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run folder not found") as raised:
        read_run(tmp_path / "nothing")
    assert "rlhfctl run" in raised.value.hint
