"""The annotators' figures in a whole evaluation, on the embedded panel."""

import json

import pytest

from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.monitor import QuietMonitor
from rlhfctl.stages import evaluate, reward


@pytest.fixture(scope="module")
def several(tiny_run, tmp_path_factory):
    """Figures of a reward model of three labels a pair, and of SFT's evaluation with it."""
    values = tiny_run.recipe.model_dump()
    values["data"]["comparisons"] |= {"labels_per_pair": 3, "max_rows": 300}
    values["reward_model"] |= {"labels": "soft", "aggregation": "dawid_skene"}
    recipe = Recipe.model_validate(values)
    inputs = {"sft": tiny_run.stage("sft"), "rm": tmp_path_factory.mktemp("rm")}
    output = tmp_path_factory.mktemp("eval")
    trained = reward.run(recipe, {"sft": inputs["sft"]}, inputs["rm"], QuietMonitor()).metrics
    evaluate.run(recipe, inputs, output, QuietMonitor())
    return trained, json.loads((output / "figures.json").read_text())["annotators"]


def test_the_reward_model_trains_on_a_row_a_pair(several):
    trained, _ = several
    assert trained["train_rows"] < 100
    assert trained["train_rows"] * 3 + trained["pairs"] == 300


def test_the_evaluation_judges_the_annotators(several):
    trained, figures = several
    assert (figures["items"], figures["labels"]) == (100, 300)
    assert figures["agreement_low"] < figures["agreement"] < figures["agreement_high"]
    assert 0.5 < figures["ceiling"]["accuracy"] < 1
    one = figures["per_annotator"]["ada"]
    assert {"labels", "agreement", "accuracy"} <= one.keys()
    assert one["reward_model"] == trained["per_annotator"]["ada"]


def test_with_one_label_a_pair_only_the_reward_models_accuracy_is_known(tiny_run):
    figures = json.loads((tiny_run.stage("eval") / "figures.json").read_text())["annotators"]
    assert "agreement" not in figures
    assert "ceiling" not in figures
    assert any("reward_model" in known for known in figures["per_annotator"].values())
    assert "every item has one label" in figures["notes"][0]
