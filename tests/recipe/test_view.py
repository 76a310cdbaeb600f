"""A stage reads the keys it declares and no others, and its part holds exactly those."""

import ast
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

import rlhfctl
from rlhfctl.recipe.base import UndeclaredReadError
from rlhfctl.recipe.data import MixtureSource
from rlhfctl.recipe.judges import JudgeEndpointSection
from rlhfctl.recipe.keys import all_keys, annotation_at, options, section_of
from rlhfctl.recipe.ppo import KLControllerSection
from rlhfctl.recipe.reward_sources import RewardSourceSection
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.view import stage_part, view
from rlhfctl.stage_table import ALL_STAGES, PPO, REWARD_MODEL, SFT

LEAVES = [path for path in all_keys() if section_of(annotation_at(path)) is None]
OPTIONAL_SECTIONS = {
    ("ppo", "kl_controller"): KLControllerSection(),
    ("evaluation", "judge_endpoint"): JudgeEndpointSection(url="http://localhost", model="judge"),
}
READ_OUTSIDE_STAGES = {
    "name": "the run folder's default name",
    "tracking.report_to": "trackers receive the metrics of every stage and change none",
    "tracking.project": "names the trackers' project",
    "sweep.set": "`rlhfctl sweep` makes one recipe per point",
    "sweep.zip": "`rlhfctl sweep` makes one recipe per point",
    "evaluation.gates": "checked against the recorded metrics after every evaluation",
}
"""Keys that no stage reads, and what does."""
NEUTRAL = {key for stage in ALL_STAGES for key in stage.neutral}


def full_recipe():
    """Return a recipe in which every optional section is present."""
    recipe = Recipe()
    for path, section in OPTIONAL_SECTIONS.items():
        recipe = replaced(recipe, path, section)
    return recipe


def replaced(section, path, value):
    """Return a copy of a section with another value at a path; no validator sees it."""
    name, *below = path
    new = replaced(getattr(section, name), below, value) if below else value
    return section.model_copy(update={name: new})


def value_at(section, path):
    for name in path:
        section = getattr(section, name)
    return section


def flipped(path, value):
    """Return another value of the type of the key at a path."""
    choices = options(annotation_at(path))
    for choice in choices:
        if get_origin(choice) is Literal:
            return next(word for word in get_args(choice) if word != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {"another": ["value"]} if path == ("sweep", "set") else {"another": "value"}
    if isinstance(value, list):
        items = {
            "reward_sources": RewardSourceSection(source="http://other"),
            "report_to": "wandb",
            "sources": MixtureSource(source="other"),
        }
        return [*value, items.get(path[-1], "another")]
    if isinstance(value, str):
        return f"{value}x"
    assert value is None, path
    return 7 if int in choices else 0.5 if float in choices else "another"


def changed_stages(path):
    """Return the names of the stages whose part changes with the key at a path."""
    recipe = full_recipe()
    other = replaced(recipe, path, flipped(path, value_at(recipe, path)))
    return {
        stage.name for stage in ALL_STAGES if stage_part(recipe, stage) != stage_part(other, stage)
    }


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_key_changes_the_part_of_exactly_the_stages_that_can_read_it(path):
    readers = set()
    for stage in ALL_STAGES:
        try:
            value_at(view(full_recipe(), stage), path)
        except UndeclaredReadError:
            continue
        if ".".join(path) not in stage.neutral:
            readers.add(stage.name)
    assert changed_stages(path) == readers


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_key_changes_some_stage_or_is_read_outside_of_them(path):
    assert bool(changed_stages(path)) != (".".join(path) in {*READ_OUTSIDE_STAGES, *NEUTRAL})


def attributes(tree):
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_key_is_read_somewhere_in_the_package():
    """By its name, as an attribute or as the field of a dataclass made from the section.

    Or by a property of its section that is read elsewhere.
    """
    read, properties = set(), {}
    for file in Path(rlhfctl.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file.parent.name == "recipe":
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef) and any(
                    ast.unparse(one) == "property" for one in node.decorator_list
                ):
                    properties[node.name] = attributes(node)
            continue
        read |= attributes(tree)
        read |= {
            ast.unparse(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)
        }
    for name, reads in properties.items():
        read |= reads if name in read else set()
    assert [".".join(path) for path in LEAVES if path[-1] not in read] == []


@pytest.mark.parametrize("stage", ALL_STAGES, ids=lambda stage: stage.name)
def test_every_declared_key_is_in_the_schema(stage):
    keys = {".".join(path) for path in all_keys()}
    assert {*stage.reads, *stage.excludes, *stage.neutral} <= keys


def test_an_undeclared_read_names_stage_and_key():
    recipe = view(Recipe(), SFT)
    assert recipe.sft == Recipe().sft
    with pytest.raises(UndeclaredReadError, match="stage sft read the recipe key ppo,"):
        _ = recipe.ppo
    with pytest.raises(UndeclaredReadError, match=r"stage sft read the recipe key data\.prompts,"):
        _ = recipe.data.prompts
    with pytest.raises(UndeclaredReadError, match=r"ppo read the recipe key sft\.learning_rate,"):
        _ = view(Recipe(), PPO).sft.learning_rate


def test_a_view_leaves_the_recipe_as_it_was():
    recipe = Recipe()
    view(recipe, SFT)
    assert recipe == Recipe()
    assert recipe.data.prompts.source == "embedded"


def test_an_unknown_attribute_is_no_undeclared_read():
    with pytest.raises(AttributeError):
        _ = view(Recipe(), SFT).nonesuch  # type: ignore[attr-defined]


def test_properties_read_declared_keys_only():
    assert view(Recipe(), PPO).ppo.rollouts == Recipe().ppo.rollouts
    with pytest.raises(UndeclaredReadError, match=r"ppo\.episodes"):
        _ = view(Recipe(), REWARD_MODEL).ppo.rollouts
