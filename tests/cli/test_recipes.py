"""`recipes` lists the shipped recipes and prints one; `schema` prints the JSON Schema."""

import json
import re

import pytest

from rlhfctl.recipe.json_schema import recipe_schema, schema_text
from rlhfctl.recipe.load import shipped_recipe, shipped_recipes
from rlhfctl.recipe.shipped import describe_shipped
from tests.present import present


def test_the_list_has_each_recipe_with_model_data_and_gpu(rlhfctl):
    shown = rlhfctl("recipes").stdout
    assert re.search(r"^base +none +embedded", shown, re.MULTILINE)
    assert re.search(r"^qwen2\.5-0\.5b-hh-rlhf +16 GB +Qwen/Qwen2\.5-0\.5B *$", shown, re.MULTILINE)
    assert "Anthropic/hh-rlhf" in shown
    listed = json.loads(rlhfctl("recipes", "--json").stdout)["recipes"]
    assert {recipe["name"] for recipe in listed} == {path.stem for path in shipped_recipes()}


@pytest.mark.parametrize("recipe", describe_shipped(), ids=lambda recipe: recipe.name)
def test_the_gpu_is_the_one_that_the_recipe_names(recipe):
    named = re.search(r"one GPU of (\d+) GB", recipe.path.read_text())
    assert recipe.gpu_memory_gb == (int(named[1]) if named else 0)


def test_a_recipe_is_printed_as_it_is(rlhfctl):
    assert rlhfctl("recipes", "base").stdout == present(shipped_recipe("base")).read_text()
    wrong = rlhfctl("recipes", "bse")
    assert wrong.returncode == 2
    assert "did you mean base?" in wrong.stderr


def test_the_schema_is_printed_and_wrapped_for_json(rlhfctl):
    assert rlhfctl("schema").stdout == schema_text()
    assert json.loads(rlhfctl("schema", "--json").stdout)["schema"] == recipe_schema()
