"""Pairs with several labels: what the reward model learns of them, and that it learns that exactly."""

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhfctl.errors import DataError
from rlhfctl.models.heads import initialise_score_head
from rlhfctl.models.scorer import load_scorer
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.recipe.training import RewardModelSection
from rlhfctl.stages.reward_model.labels import LabelTrainer, aggregated
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.shared.hf_training import training_arguments
from tests.reference import ppo_reference as reference

END = 1
IDS = {
    "chosen": [[300, 301, 302, END], [310, END], [320, 321, 322, 323, 324, END]],
    "rejected": [[300, 303, END], [310, 311, 312, 313, END], [320, END]],
}
MARGINS, TARGETS, WEIGHTS = [0.5, 0.0, 2.0], [0.5, 0.75, 1.0], [0.5, 2.0, 0.5]
PAIRS = {
    "chosen_ids": IDS["chosen"],
    "rejected_ids": IDS["rejected"],
    "margin": MARGINS,
    "target": TARGETS,
    "weight": WEIGHTS,
}


def votes(prompt, *choices):
    """One row a choice: `ada>` means that ada took x over y."""
    return [
        {
            "prompt": prompt,
            "chosen": "x" if choice.endswith(">") else "y",
            "rejected": "y" if choice.endswith(">") else "x",
            "annotator": choice[:-1],
        }
        for choice in choices
    ]


ROWS = Dataset.from_list(
    [
        *votes("clear", "ada>", "ben>", "cleo>"),
        *votes("likely", "ada<", "ben<", "cleo<", "dora>"),
        *votes("tied", "ada>", "ben<"),
        *votes("single", "dora>"),
    ]
)


def learnt(labels, aggregation="votes", rows=ROWS):
    section = RewardModelSection(labels=labels, aggregation=aggregation)
    return {row["prompt"]: row for row in aggregated(rows, section).to_list()}


def test_as_given_leaves_every_row_as_it_is():
    assert aggregated(ROWS, RewardModelSection()) is ROWS


def test_weights_of_rankings_keep_their_ratios_and_have_the_mean_1():
    rows = Dataset.from_list(
        [
            {"prompt": prompt, "chosen": "a", "rejected": "b", "weight": weight}
            for prompt, weight in (("two", 1.0), ("four", 1 / 6), ("four", 1 / 6))
        ]
    )
    weights = aggregated(rows, RewardModelSection())["weight"]
    assert sum(weights) == pytest.approx(3.0)
    assert weights[0] / weights[1] == pytest.approx(6.0)
    with pytest.raises(DataError, match="weighted pairs of rankings"):
        aggregated(rows, RewardModelSection(labels="majority"))


def test_what_the_majority_leaves_out_is_said():
    said: list[str] = []
    aggregated(ROWS, RewardModelSection(labels="majority"), said.append)
    assert said == ["1 of 4 pairs are tied and left out"]


def test_the_majority_drops_ties():
    found = learnt("majority")
    assert {prompt: row["chosen"] for prompt, row in found.items()} == {
        "clear": "x",
        "likely": "y",
        "single": "x",
    }
    assert set(found["clear"]) == {"prompt", "chosen", "rejected"}


def test_soft_targets_are_the_shares_of_votes():
    targets = {prompt: row["target"] for prompt, row in learnt("soft").items()}
    assert targets == {"clear": 1.0, "likely": 0.75, "tied": 0.5, "single": 1.0}


def test_weights_are_how_clear_the_majority_is_and_one_on_average():
    weights = {prompt: row["weight"] for prompt, row in learnt("weighted").items()}
    assert weights["likely"] / weights["clear"] == pytest.approx(0.5)
    assert sum(weights.values()) / len(weights) == pytest.approx(1.0)


def test_dawid_skene_hears_the_reliable_against_a_majority():
    good, bad = ("ada", "ben"), ("x1", "x2", "x3")
    rows = []
    for n in range(60):
        right, wrong = (">", "<") if n % 2 else ("<", ">")
        # The three each err on another third of the pairs, and all on the last ones.
        answers = [*(name + right for name in good)]
        answers += [
            name + (wrong if n % 3 == at or n >= 54 else right) for at, name in enumerate(bad)
        ]
        rows += votes(f"Q{n}", *answers)
    data = Dataset.from_list(rows)
    right = "x"  # of Q59, an odd one
    assert learnt("majority", rows=data)["Q59"]["chosen"] != right
    assert learnt("majority", "dawid_skene", data)["Q59"]["chosen"] == right
    assert learnt("soft", "dawid_skene", data)["Q59"]["target"] > 0.9


@pytest.mark.parametrize(
    ("rows", "labels", "aggregation", "complaint"),
    [
        (votes("a", "ada>") + votes("b", "ada>"), "majority", "votes", "no two rows compare"),
        (votes("a", "ada>", "ben<"), "weighted", "votes", "every pair is tied"),
        (votes("a", "ada>", "ben>"), "soft", "dawid_skene", "at least three annotators"),
    ],
)
def test_what_cannot_be_aggregated_is_refused(rows, labels, aggregation, complaint):
    section = RewardModelSection(labels=labels, aggregation=aggregation)
    with pytest.raises(DataError, match=complaint):
        aggregated(Dataset.from_list(rows), section)


@pytest.fixture(scope="module")
def parts():
    section = ModelSection()
    tokenizer = load_tokenizer(section)
    model = load_scorer(section, tokenizer.pad_token_id)
    initialise_score_head(model.score, seed=1)
    return model, tokenizer


def trainer_of(parts, folder, columns, kind=LabelTrainer, centring=None, **settings):
    recipe = Recipe()
    return kind(
        model=parts[0],
        args=RewardConfig(
            **training_arguments(recipe.reward_model, recipe, folder),
            center_rewards_coefficient=centring,
        ),
        train_dataset=Dataset.from_dict({name: PAIRS[name] for name in columns}),
        processing_class=parts[1],
        **settings,
    )


def loss_of(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    return trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    ("columns", "smoothing", "centring"),
    [
        ((), 0.1, None),
        ((), 0.1, 0.05),
        (("margin",), 0.25, None),
        (("target",), 0.0, None),
        (("weight",), 0.0, 0.05),
        (("weight",), 0.2, None),
    ],
)
def test_the_loss_is_that_of_the_reference(parts, tmp_path, columns, smoothing, centring):
    every = ["chosen_ids", "rejected_ids", *columns]
    trainer = trainer_of(parts, tmp_path, every, smoothing=smoothing, centring=centring)
    model, tokenizer = parts
    chosen, rejected = (
        score_ids(model, IDS[side], tokenizer.pad_token_id, 1) for side in ("chosen", "rejected")
    )
    expected = reference.labelled_loss(
        chosen,
        rejected,
        margins=MARGINS if "margin" in columns else [0.0] * 3,
        targets=TARGETS if "target" in columns else [1 - smoothing] * 3,
        weights=WEIGHTS if "weight" in columns else [1.0] * 3,
        centring=centring or 0.0,
    )
    assert loss_of(trainer).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("centring", [None, 0.05])
def test_without_any_of_it_the_loss_is_trls_to_the_last_bit(parts, tmp_path, centring):
    columns = ["chosen_ids", "rejected_ids", "margin"]
    found = [
        loss_of(trainer_of(parts, tmp_path, columns, kind, centring))
        for kind in (LabelTrainer, RewardTrainer)
    ]
    assert torch.equal(*found)


def test_soft_targets_of_one_or_zero_smoothing_are_plain_labels(parts, tmp_path):
    columns = ["chosen_ids", "rejected_ids"]
    trainer = trainer_of(parts, tmp_path, [*columns, "target"])
    batch = next(iter(trainer.get_train_dataloader()))
    batch["target"] = torch.ones(3)
    plain = loss_of(trainer_of(parts, tmp_path, columns))
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(
        plain.item(), abs=1e-6
    )
