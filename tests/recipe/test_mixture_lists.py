"""Lists of sources in recipes: short form, layers on top of each other, errors with their place."""

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.recipe.load import dump_recipe, load_recipe

LIST = """data:
  demonstrations:
    - {source: a.jsonl, weight: 2}
    - {source: b.jsonl, weight: 1, preset: alpaca}
"""


def write(folder, text, name="r.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_list_is_a_section_with_sources(tmp_path):
    loaded = load_recipe(write(tmp_path, LIST))
    section = loaded.recipe.data.demonstrations
    assert [(one.source, one.weight) for one in section.sources] == [("a.jsonl", 2), ("b.jsonl", 1)]
    assert (section.is_embedded, section.title) == (False, "a.jsonl, b.jsonl")
    assert loaded.origins["data.demonstrations.sources"].endswith("r.yaml:2")
    again = load_recipe(write(tmp_path, dump_recipe(loaded.recipe), "again.yaml"))
    assert again.recipe == loaded.recipe


def test_sources_replace_the_source_of_a_lower_layer_and_the_other_way_round(tmp_path):
    below = "data:\n  demonstrations: {source: x.jsonl, as_chat: true, held_out: 0.3}\n"
    write(tmp_path, below, "below.yaml")
    path = write(tmp_path, "extends: below.yaml\n" + LIST)
    section = load_recipe(path).recipe.data.demonstrations
    assert (len(section.sources), section.as_chat, section.held_out) == (2, False, 0.3)
    section = load_recipe(path, ["data.demonstrations.source=y.jsonl"]).recipe.data.demonstrations
    assert (section.sources, section.source) == ([], "y.jsonl")
    section = load_recipe(path, ["data.demonstrations.held_out=0.4"]).recipe.data.demonstrations
    assert (len(section.sources), section.held_out) == (2, 0.4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {source: a, wieght: 1}", "r.yaml:3: data.demonstrations.sources.0.wieght: unknown key"),
        ("- {source: a, wieght: 1}", "did you mean weight?"),
        ("- {weight: 1}", "data.demonstrations.sources.0.source: field required"),
        ("- {source: a, weight: 0}", "is 0, but must be above 0"),
        ("- {source: a, weight: 1}\n    - {source: b}", "1 of 2 have a weight; give one to all"),
        ("- a.jsonl", "must be a section of keys"),
    ],
)
def test_an_error_has_its_place(tmp_path, text, said):
    path = write(tmp_path, f"data:\n  demonstrations:\n    {text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("max_rows: 5", "max_rows is set beside sources; set it in each of the sources"),
        ("oversample: true", "oversample needs sources with weights"),
    ],
)
def test_keys_of_one_source_beside_several_are_refused(tmp_path, key, said):
    text = f"data:\n  demonstrations:\n    {key}\n    sources: [{{source: a}}, {{source: b}}]\n"
    with pytest.raises(RecipeError, match=said):
        load_recipe(write(tmp_path, text))
