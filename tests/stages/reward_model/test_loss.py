"""The loss that TRL's RewardTrainer really minimises, against the slow reference."""

from functools import partial

import pytest
import torch
from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhfctl.models.heads import initialise_score_head
from rlhfctl.models.scorer import load_scorer
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.stages.reward_model.scoring import score_ids
from rlhfctl.stages.shared.hf_training import training_arguments
from tests.reference import ppo_reference as reference

END = 1
IDS = {
    "chosen": [[300, 301, 302, END], [310, END], [320, 321, 322, 323, 324, END]],
    "rejected": [[300, 303, END], [310, 311, 312, 313, END], [320, END]],
}
MARGINS = [0.5, 0.0, 2.0]
PAIRS = {
    "chosen_ids": IDS["chosen"],
    "rejected_ids": IDS["rejected"],
    "margin": MARGINS,
}


@pytest.fixture(scope="module")
def parts():
    section = ModelSection()
    tokenizer = load_tokenizer(section)
    assert tokenizer.eos_token_id == END
    model = load_scorer(section, tokenizer.pad_token_id)
    initialise_score_head(model.score, seed=1)
    return model, tokenizer


def trainer_of(parts, folder, columns, centring):
    recipe = Recipe()
    model, tokenizer = parts
    arguments = training_arguments(recipe.reward_model, recipe, folder)
    return RewardTrainer(
        model=model,
        args=RewardConfig(**arguments, center_rewards_coefficient=centring),
        train_dataset=Dataset.from_dict({name: PAIRS[name] for name in columns}),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("centring", [None, 0.05])
def test_it_is_that_of_the_reference(parts, tmp_path, margin, centring):
    columns = ["chosen_ids", "rejected_ids", *(["margin"] if margin else [])]
    trainer = trainer_of(parts, tmp_path, columns, centring)
    rows = [trainer.train_dataset[at] for at in range(len(MARGINS))]
    assert [row["chosen_ids"] for row in rows] == IDS["chosen"], "nothing cut, nothing added"
    inputs = trainer.data_collator(rows)
    loss = trainer.compute_loss(trainer.model, inputs)

    model, tokenizer = parts
    chosen, rejected = (
        score_ids(model, IDS[side], tokenizer.pad_token_id, 1) for side in ("chosen", "rejected")
    )
    margins = MARGINS if margin else [0.0] * 3
    expected = reference.reward_model_loss(chosen, rejected, margins, centring or 0.0)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_its_gradient_by_the_scores_is_that_of_the_reference(parts, tmp_path):
    """By the weights of the score head, along random directions."""
    trainer = trainer_of(parts, tmp_path, list(PAIRS), 0.05)
    inputs = trainer.data_collator([trainer.train_dataset[at] for at in range(3)])
    model = parts[0]
    model.zero_grad()
    trainer.compute_loss(model, inputs).backward()
    found = model.score.weight.grad[0].clone()
    states = {}
    for side in ("chosen", "rejected"):
        with torch.no_grad():
            states[side] = torch.stack(
                [model.model(torch.tensor([ids]))[0][0, -1] for ids in IDS[side]]
            ).double()
    weight = model.score.weight[0].detach().double()

    def loss_along(direction, step):
        moved = weight + step * direction
        chosen, rejected = ((states[side] @ moved).tolist() for side in ("chosen", "rejected"))
        return reference.reward_model_loss(chosen, rejected, MARGINS, 0.05)

    torch.manual_seed(0)
    for _ in range(4):
        direction = torch.randn(len(weight), dtype=torch.float64)
        slope = reference.derivative(partial(loss_along, direction), 0.0)
        assert float(found.double() @ direction) == pytest.approx(slope, rel=1e-4, abs=1e-4)
