"""The text of a new recipe: equal when read, with a comment for each key."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from rlhfctl.recipe.json_schema import EDITOR_LINE
from rlhfctl.recipe.keys import all_keys
from rlhfctl.recipe.load import load_recipe, shipped_recipes
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.starter import STARTING_KEYS, starter_text

ODD = {
    "name": "no",
    "lora": None,
    "model": {"revision": "1e5", "pad_token": "<|pad|>\n", "chat_template_kwargs": {"a": None}},
    "ppo": {
        "kl_controller": {},
        "reward_sources": [{"source": "rm"}, {"source": "m:f", "weight": -1}],
    },
    "evaluation": {"gates": {"win_rate": ">=0.55"}, "judge_endpoint": {"url": "http://h", "model": "m"}},
}  # fmt: skip


def written(recipe: Recipe, tmp_path: Path) -> str:
    """Return the text of a recipe after checking that it is read back equal."""
    text = starter_text(recipe, " --from x", "new.yaml")
    path = tmp_path / "new.yaml"
    path.write_text(text)
    assert load_recipe(path).recipe == recipe
    return text


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.name)
def test_a_shipped_recipe_is_read_back_equal(path, tmp_path):
    text = written(load_recipe(path).recipe, tmp_path)
    assert text.splitlines()[0] == EDITOR_LINE
    assert max(map(len, text.splitlines())) <= 100


def test_values_that_yaml_would_misread_are_read_back_equal(tmp_path):
    assert "\n  kl_controller: {}\n" in written(Recipe.model_validate(ODD), tmp_path)


def test_the_defaults_have_the_starting_keys_and_no_others(tmp_path):
    path = tmp_path / "new.yaml"
    path.write_text(starter_text(Recipe(), "", "new.yaml"))
    origins = load_recipe(path).origins
    assert {key for key, origin in origins.items() if origin != "default"} == STARTING_KEYS
    assert {".".join(key) for key in all_keys()} >= STARTING_KEYS


def test_each_section_and_each_key_has_a_comment_above_it_or_had_one_before():
    lines = starter_text(Recipe(), "", "new.yaml").splitlines()
    bare = [
        line.strip()
        for above, line in itertools.pairwise(lines)
        if line and not line.lstrip().startswith("#") and not above.lstrip().startswith("#")
    ]
    # Comments of several lines are written once: on the first source and the first max_length.
    assert {line.partition(":")[0] for line in bare} <= {"source", "max_length"}
