"""Rows as the model reads them: masks and ends that are the stages', and counts of all rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from rlhfctl.cli.data_rows import _shown
from rlhfctl.data.progress import NO_PROGRESS
from rlhfctl.data.sources import load_demonstrations
from rlhfctl.data_view import prepare_data, view_data
from rlhfctl.recipe.schema import Recipe


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(**keys):
        pairs = [
            {"prompt": f"What is {n}?", "chosen": " One.", "rejected": " It is two."}
            for n in range(40)
        ]
        pairs[3]["chosen"] = pairs[3]["rejected"]
        pairs[5]["chosen"] = " word" * 40
        pairs += pairs[:2]
        with Path("x.jsonl").open("w") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in pairs)
        source = {"source": "x.jsonl", "as_chat": True}
        answers = source | {"columns": {"completion": "chosen"}}
        data = {"demonstrations": answers, "comparisons": source, "prompts": source}
        limits = {"sft": {"max_length": 40}, "reward_model": {"max_length": 40}}
        return Recipe.model_validate({"data": data | {"max_bad_fraction": 1.0}} | limits | keys)

    return make


def text_of(view, *, coloured=False, full=False):
    console = Console(width=80, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    for line in _shown(view, coloured=coloured, full=full):
        console.print(line, soft_wrap=True)
    return console.export_text(styles=coloured)


def test_only_the_answer_and_its_end_are_in_the_loss(recipe):
    seen = view_data(recipe(), "sft", 2, NO_PROGRESS)
    ((row,), _) = seen.rows
    before, answer = row.segments
    assert (before.trained, answer.trained) == (False, True)
    assert "What is" in before.text
    assert answer.text.replace(" ", "").startswith("One.")
    assert answer.text.endswith(row.end)
    assert row.end_trained


def test_comparisons_are_counted_by_what_was_wrong_with_them(recipe):
    seen = view_data(recipe(), "rm", 1, NO_PROGRESS)
    assert seen.read == 42
    assert seen.chosen_equals_rejected == 1
    assert seen.too_long == 1
    assert seen.duplicates == 2
    assert seen.truncated == 0
    assert seen.train + seen.held_out == 40 == sum(seen.lengths.rows)
    assert [sequence.name for sequence in seen.rows[0]] == ["chosen", "rejected"]


def test_repeated_prompts_are_duplicates_and_nothing_of_a_prompt_is_trained(recipe):
    seen = view_data(recipe(), "ppo", 3, NO_PROGRESS)
    assert seen.duplicates == 2
    assert not any(part.trained for row in seen.rows for one in row for part in one.segments)
    assert all(one.end == "" for row in seen.rows for one in row)


def test_lengths_are_those_of_the_rows(recipe):
    seen = view_data(recipe(), "sft", 50, NO_PROGRESS)
    lengths = [sum(part.tokens for part in row[0].segments) for row in seen.rows]
    assert len(lengths) == seen.train
    assert max(lengths) <= seen.lengths.longest < seen.lengths.edges[-1]
    assert seen.lengths.edges[0] == 0
    assert min(lengths) <= seen.lengths.median <= seen.lengths.p95


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_no_line_is_wider_than_80_columns(recipe, stage):
    shown = text_of(view_data(recipe(), stage, 3, NO_PROGRESS))
    assert max(map(len, shown.splitlines())) <= 80


def test_trained_text_has_brackets_without_colours_and_colours_instead_of_them(recipe):
    seen = view_data(recipe(), "sft", 1, NO_PROGRESS)
    assert "[[One." in text_of(seen).replace(" One", "One")
    coloured = text_of(seen, coloured=True)
    assert "[[" not in coloured
    assert "\x1b[" in coloured


def test_everything_is_prepared_for_the_stages(recipe):
    parts = list(prepare_data(recipe(reward_model={"judge_share": 0.3}), NO_PROGRESS))
    assert [(part.kind, part.part) for part in parts] == [
        ("demonstrations", "train"),
        ("demonstrations", "held out"),
        ("comparisons", "train"),
        ("comparisons", "held-out reward model"),
        ("comparisons", "held out"),
        ("prompts", "train"),
        ("prompts", "held out"),
    ]
    assert all(part.rows and part.digest is None for part in parts)  # too small to be stored


def test_columns_that_nothing_reads_are_shown_and_recorded(recipe):
    """The answers of the pairs as demonstrations: what they were compared with is not read."""
    changed = recipe()
    view = view_data(changed, "sft", 1, NO_PROGRESS)
    note = "columns that are not read: rejected"
    assert note in view.notes
    assert note in text_of(view)
    assert note in load_demonstrations(changed).report.record()["notes"]
