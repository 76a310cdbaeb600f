"""Labels of several annotators in a recipe: combinations that make no sense are refused by name."""

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.recipe.load import load_recipe

SEVERAL = "data.comparisons.labels_per_pair=3"


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("name: x\n")
    return lambda *settings: load_recipe(path, settings).recipe


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["reward_model.labels=majority"], ("labels: majority", "labels_per_pair")),
        (
            [SEVERAL, "reward_model.labels=soft", "reward_model.label_smoothing=0.1"],
            ("labels: soft and label_smoothing",),
        ),
        (["reward_model.aggregation=dawid_skene"], ("aggregation: dawid_skene", "as_given")),
        (
            [SEVERAL, "reward_model.labels=weighted", "reward_model.use_margin=true"],
            ("labels: weighted", "use_margin"),
        ),
        (["reward_model.label_smoothing=0.5"], ("label_smoothing", "below 0.5")),
        ([SEVERAL, "data.comparisons.source=x.jsonl"], ("labels_per_pair", "another source")),
        (["reward_model.labels=votes"], ("labels", "one of")),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(load, settings, words):
    with pytest.raises(RecipeError) as caught:
        load(*settings)
    for said in words:
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        ["reward_model.label_smoothing=0.1"],
        [SEVERAL],
        [SEVERAL, "reward_model.labels=soft", "reward_model.aggregation=dawid_skene"],
        [SEVERAL, "reward_model.labels=majority", "reward_model.label_smoothing=0.1"],
        ["data.comparisons.source=x.jsonl", "reward_model.labels=weighted"],
    ],
)
def test_what_makes_sense_is_taken(load, settings):
    load(*settings)
