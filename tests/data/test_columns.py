"""Further columns of prompts, for the rows that are left of them."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
from datasets import Dataset

from rlhfctl.data import columns
from rlhfctl.data.columns import column_names, read_columns
from rlhfctl.data.formatting import encode_prompts
from rlhfctl.data.sources import evaluation_prompts, load_prompts
from rlhfctl.recipe.schema import Recipe

ROWS = [
    {"prompt": f"What is {n} plus {n}?", "solution": str(2 * n), "level": n, "completion_ids": 1}
    for n in range(40)
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recipe_of(rows=ROWS, **prompts):
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"source": "rows.jsonl", **prompts}
    return Recipe.model_validate({"data": {"prompts": section, "max_bad_fraction": 1.0}})


def number_in(prompt):
    return int(prompt.split()[2])


class WordIds:
    """A formatter whose ids are the characters of a prompt."""

    parse_special = False

    def each_prompt(self, prompts):
        return [list(map(ord, prompt)) for prompt in prompts]

    def spelled(self, prompt):
        return None


def test_values_belong_to_their_prompts_after_all_that_drops_and_draws_rows():
    doubled = [row for row in ROWS for _ in range(2)]
    empty = {"prompt": "", "solution": "none"}
    recipe = recipe_of([empty, *doubled, empty], max_rows=60, held_out=0.3)
    split = load_prompts(recipe)
    encoded = encode_prompts(split.train, cast("Any", WordIds()), len("What is 9 plus 9?")).dataset
    assert split.report.duplicates > 0
    for prompts in (split.train, split.held_out, encoded, evaluation_prompts(recipe)):
        values = read_columns(recipe, prompts, None)
        assert set(values) == {"solution", "level"}
        numbers = [number_in(prompt) for prompt in prompts["prompt"]]
        assert len(numbers) > 2
        assert values["solution"] == [str(2 * number) for number in numbers]
        assert values["level"] == numbers
    repeated = encoded.select([3, 0, 3])
    assert len(set(read_columns(recipe, repeated, {"level"})["level"])) == 2


def test_values_of_any_type_stay_what_they_are():
    rows = [dict(row, solution=[n, {"a": n}, None][n % 3]) for n, row in enumerate(ROWS)]
    prompts = load_prompts(recipe_of(rows)).train
    values = read_columns(recipe_of(rows), prompts, {"solution"})["solution"]
    assert {type(value) for value in values} == {int, dict, type(None)}
    Dataset.from_list(ROWS).save_to_disk("saved")
    saved = recipe_of(source="saved")
    prompts = load_prompts(saved).train
    expected = [2 * number_in(prompt) for prompt in prompts["prompt"]]
    assert list(map(int, read_columns(saved, prompts, {"solution"})["solution"])) == expected


def test_columns_that_nobody_wants_are_not_even_read(monkeypatch):
    recipe = recipe_of()
    prompts = load_prompts(recipe).train
    assert set(read_columns(recipe, prompts, {"level", "absent"})) == {"level"}
    assert column_names(recipe) == ("prompt", "solution", "level", "completion_ids")
    monkeypatch.setattr(columns, "raw_prompts", None)
    assert read_columns(recipe, prompts, {"prompts", "completions", "completion_ids"}) == {}
