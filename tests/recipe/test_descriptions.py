"""Every recipe key has a description that can be read on its own."""

import pytest

from rlhfctl.recipe.base import Section
from rlhfctl.recipe.keys import all_keys, annotation_at, options, section_of, takes_null
from rlhfctl.recipe.reward_sources import RewardSourceSection
from rlhfctl.recipe.schema import Recipe
from tests.present import present


def field_at(path):
    """Return pydantic's field of the key at a path."""
    section: type[Section] = Recipe
    for name in path[:-1]:
        section = present(section_of(section.model_fields[name].annotation))
    return section.model_fields[path[-1]]


FIELDS = {".".join(path): field_at(path) for path in all_keys()} | {
    f"ppo.reward_sources.{name}": field for name, field in RewardSourceSection.model_fields.items()
}


@pytest.mark.parametrize("key", FIELDS)
def test_a_description_is_complete(key):
    description = FIELDS[key].description
    assert description is not None
    assert description.endswith(".")
    assert len(description.split()) >= 3
    assert not description.startswith(("Of ", "In ", "For ", "By ", "null"))


@pytest.mark.parametrize(
    "key", [".".join(path) for path in all_keys() if takes_null(annotation_at(path))]
)
def test_a_key_that_takes_null_says_what_null_means(key):
    assert "null" in FIELDS[key].description


def test_no_description_is_a_whole_paragraph():
    assert {key for key, field in FIELDS.items() if len(field.description) > 300} == set()


def test_sections_have_docstrings():
    sections = {
        choice
        for path in all_keys()
        for choice in options(annotation_at(path))
        if section_of(choice) is not None
    }
    assert all(section.__doc__ for section in sections)
