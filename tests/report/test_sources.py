import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhfctl.errors import CheckpointError
from rlhfctl.report.sections import sections
from rlhfctl.report.sources import MOST_SAMPLES, read_run
from rlhfctl.report.verdict import verdict_of
from rlhfctl.run.directory import MANIFEST_FILE
from rlhfctl.run.manifest import Artifact, Manifest
from rlhfctl.run.sealed import sealed


def test_a_run_is_read_whole(finished_run: Path) -> None:
    facts = read_run(finished_run)
    assert facts.name == "trial"
    assert list(facts.records) == ["sft", "rm", "ppo", "eval"]
    assert len(facts.curves["ppo"]) == 10
    assert facts.evaluation is not None
    assert facts.evaluation.prompts == 60
    assert len(facts.samples) == 12
    assert facts.training_samples[0].response == "kept on the way"
    assert facts.recipe.startswith("name: trial")


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    facts = read_run(tmp_path)
    assert not (facts.records or facts.evaluation or facts.samples or facts.recipe)
    assert facts.sft is None


def test_metrics_of_the_manifest_serve_where_the_file_is_gone(finished_run: Path) -> None:
    before = read_run(finished_run).evaluation
    (finished_run / "eval" / "metrics.json").unlink()
    assert read_run(finished_run).evaluation == before
    assert before is not None


def test_a_page_holds_a_bounded_number_of_samples(make_run: Callable[..., Path]) -> None:
    root = make_run("sft")
    (root / "eval").mkdir()
    (root / "eval" / "samples.jsonl").write_text('{"prompt": "p", "scores": {}}\n' * 500)
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


def rewrite(file: Path, change: Callable[[Any], Any]) -> None:
    changed = change(json.loads(file.read_text()))
    file.write_text(json.dumps(sealed(changed) if file.name == MANIFEST_FILE else changed))


@pytest.mark.parametrize(
    ("name", "change", "where", "what"),
    [
        (
            "eval/metrics.json",
            lambda metrics: metrics | {"tax": {"tasks": 3}},
            "eval/metrics.json",
            "tax.tasks: expected dict[str, rlhfctl.results.evaluation.TaxTask], not 3",
        ),
        (
            "manifest.json",
            lambda manifest: manifest["stages"]["sft"]["metrics"].pop("steps") and manifest,
            "manifest.json, metrics of sft",
            "steps: missing field",
        ),
        (
            "ppo/over_optimisation.json",
            lambda summary: summary | {"peak": 1},
            "ppo/over_optimisation.json",
            "peak: unknown field",
        ),
    ],
)
def test_results_of_another_format_are_named_and_the_rest_is_shown(
    judged_run: Path, name: str, change: Callable[[Any], Any], where: str, what: str
) -> None:
    rewrite(judged_run / name, change)
    facts = read_run(judged_run)
    sentence = facts.unreadable[0]
    assert sentence.startswith(f"{judged_run / where} has another format ({what}), so its part")
    assert "Re-run the stage" in sentence
    assert sentence in verdict_of(facts).cautions
    before = {"sft": facts.sft, "eval": facts.evaluation, "held-out": facts.over_optimisation}
    assert [part for part in before.values() if part is None] == [None]
    assert facts.reward_model is not None
    assert "Reward model" in [section.title for section in sections(facts)]


def test_an_evaluation_of_another_format_is_not_called_missing(judged_run: Path) -> None:
    rewrite(judged_run / "eval" / "metrics.json", lambda metrics: metrics | {"version": 99})
    verdict = verdict_of(read_run(judged_run))
    assert verdict.sentence == "The evaluation cannot be read: run rlhfctl eval --force."
    assert "version: expected 1, not 99" in verdict.cautions[0]


def test_samples_of_another_format_name_their_line(judged_run: Path) -> None:
    file = judged_run / "eval" / "samples.jsonl"
    file.write_text('{"prompt": "p", "scores": {}}\n{"prompt": "p", "scores": 1}\n')
    facts = read_run(judged_run)
    assert facts.samples == []
    assert f"{file}:2 has another format (scores: expected " in facts.unreadable[0]


def test_a_changed_number_is_a_caution(judged_run: Path) -> None:
    manifest = Manifest.load(judged_run / MANIFEST_FILE)
    for name in ("ppo", "eval"):
        output = Artifact.of(judged_run / name, judged_run)
        manifest = manifest.with_stage(replace(manifest.stages[name], outputs={name: output}))
    manifest.save(judged_run / MANIFEST_FILE)
    assert read_run(judged_run).unreadable == ()
    rewrite(judged_run / "eval" / "metrics.json", lambda metrics: metrics | {"prompts": 61})
    (sentence,) = read_run(judged_run).unreadable
    assert sentence.startswith("Output eval was modified since it was recorded")


def test_every_changed_byte_of_a_training_log_is_a_caution(judged_run: Path) -> None:
    log = judged_run / "logs" / "sft.jsonl"
    manifest = Manifest.load(judged_run / MANIFEST_FILE)
    record = replace(manifest.stages["sft"], log=Artifact.of(log, judged_run))
    manifest.with_stage(record).save(judged_run / MANIFEST_FILE)
    whole = log.read_bytes()
    before = read_run(judged_run).unreadable
    digits = [at for at, byte in enumerate(whole) if byte in b"0123456789"]
    for place in digits[:: max(len(digits) // 20, 1)]:
        other = b"1" if whole[place : place + 1] != b"1" else b"2"
        log.write_bytes(whole[:place] + other + whole[place + 1 :])
        (sentence,) = set(read_run(judged_run).unreadable) - set(before)
        assert sentence.startswith("Log logs/sft.jsonl was modified since it was recorded")
    log.unlink()
    (sentence,) = set(read_run(judged_run).unreadable) - set(before)
    assert sentence.startswith("Log logs/sft.jsonl is missing")
