"""The shipped recipes are found, valid, and set for their own models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhfctl.recipe.load import load_recipe, shipped_recipe, shipped_recipes
from tests.present import present

EXPECTED = {
    "overoptimisation",
    "steps",
    "base",
    "smollm2-135m",
    "qwen2.5-0.5b-hh-rlhf",
    "llama-3.1-8b-qlora-ultrafeedback",
    "tldr-pythia-1b",
    "tldr-pythia-2.8b",
    "tldr-pythia-6.9b",
}
EMBEDDED = {"base", "overoptimisation", "steps"}
OWN_DATA = {"smollm2-135m"}
"""Recipes on data that a program of the repository writes, measured by `make real`."""
REAL = [path for path in shipped_recipes() if path.stem not in EMBEDDED | OWN_DATA]

# what a real run may have in common with the embedded one, whose rates suit a million weights
SHARED_WITH_BASE = {"seed", "sft.num_train_epochs", "reward_model.num_train_epochs"}


def test_all_shipped_recipes_are_found():
    assert {path.stem for path in shipped_recipes()} >= EXPECTED


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.name)
def test_each_recipe_is_valid_and_named_after_its_file(path):
    assert load_recipe(path).recipe.name == path.stem


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_ones_override_all_that_the_tiny_model_asked_for(path):
    origins = load_recipe(path).origins
    inherited = {key for key, origin in origins.items() if "base.yaml:" in origin}
    assert inherited <= SHARED_WITH_BASE


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_ones_name_hub_models_and_data_of_their_own(path):
    recipe = load_recipe(path).recipe
    data = recipe.data
    names = [recipe.model.name_or_path]
    names += [part.source for part in (data.demonstrations, data.comparisons, data.prompts)]
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in names)


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.name)
def test_a_response_to_the_longest_prompt_fits_where_the_reward_model_reads(path):
    recipe = load_recipe(path).recipe
    longest = recipe.generation.max_prompt_length + recipe.generation.max_new_tokens
    assert longest <= recipe.reward_model.max_length


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_unmeasured_recipes_say_so(path):
    assert re.search(r"not\s+(#\s+)?measured\s+(#\s+)?yet", path.read_text())


@pytest.mark.parametrize("name", ["base", "base.yaml", "recipes/base.yaml"])
def test_is_found_by_any_of_its_names(name):
    found = shipped_recipe(name)
    assert found is not None
    assert found.name == "base.yaml"


def test_another_name_finds_nothing():
    assert shipped_recipe("no-such-recipe") is None


def test_the_table_of_sizes_has_the_recipes_values():
    page = (Path(__file__).parents[2] / "docs/how-to/sizes.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) >= 4
    for row in rows:
        name, sft, reward_model, rates, sizes, episodes = (cell.strip(" `") for cell in row[:6])
        recipe = load_recipe(present(shipped_recipe(name))).recipe
        ppo = recipe.ppo
        for cell, section in ((sft, recipe.sft), (reward_model, recipe.reward_model)):
            batch = section.per_device_train_batch_size * section.gradient_accumulation_steps
            assert [float(word) for word in cell.split(",")] == [section.learning_rate, batch]
        assert [float(word) for word in rates.split(",")] == [
            ppo.learning_rate,
            ppo.value_learning_rate,
        ]
        assert [int(word) for word in sizes.split(",")] == [
            ppo.rollout_batch_size,
            ppo.minibatch_size,
            ppo.epochs,
        ]
        assert int(episodes.replace(",", "")) == ppo.episodes
