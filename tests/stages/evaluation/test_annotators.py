"""The annotators' metrics in a whole evaluation, on the embedded panel."""

import json

import pytest

from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.evaluation import stage as evaluation
from rlhfctl.stages.reward_model import stage as reward_model


@pytest.fixture(scope="module")
def several(tiny_run, tmp_path_factory):
    """Metrics of a reward model of three labels a pair, and of SFT's evaluation with it."""
    values = tiny_run.recipe.model_dump()
    values["data"]["comparisons"] |= {"labels_per_pair": 3, "max_rows": 300}
    values["reward_model"] |= {"labels": "soft", "aggregation": "dawid_skene"}
    recipe = Recipe.model_validate(values)
    inputs = {"sft": tiny_run.stage("sft"), "rm": tmp_path_factory.mktemp("rm")}
    output = tmp_path_factory.mktemp("eval")
    trained = reward_model.run(recipe, {"sft": inputs["sft"]}, inputs["rm"], NullMonitor()).metrics
    evaluation.run(recipe, inputs, output, NullMonitor())
    return trained, json.loads((output / "metrics.json").read_text())["annotators"]


def test_the_reward_model_trains_on_a_row_a_pair(several):
    trained, _ = several
    assert trained["train_rows"] < 100
    assert trained["train_rows"] * 3 + trained["pairs"] == 300


def test_the_evaluation_judges_the_annotators(several):
    trained, metrics = several
    assert (metrics["items"], metrics["labels"]) == (100, 300)
    assert metrics["agreement_low"] < metrics["agreement"] < metrics["agreement_high"]
    assert 0.5 < metrics["ceiling"]["accuracy"] < 1
    one = metrics["per_annotator"]["ada"]
    assert {"labels", "agreement", "accuracy"} <= one.keys()
    assert one["reward_model"] == trained["per_annotator"]["ada"]


def test_with_one_label_per_pair_only_the_reward_models_accuracy_is_reported(tiny_run):
    metrics = json.loads((tiny_run.stage("eval") / "metrics.json").read_text())["annotators"]
    assert "agreement" not in metrics
    assert "ceiling" not in metrics
    assert any("reward_model" in known for known in metrics["per_annotator"].values())
    assert "no item has two labels" in metrics["notes"][0]
