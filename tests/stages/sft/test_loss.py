"""The loss that TRL's SFTTrainer really minimises: the mean over response tokens, the end included."""

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.stages.shared.hf_training import training_arguments
from tests.reference import ppo_reference as reference

END = 1
ROWS = [([300, 301, 302], [310, 311, END]), ([303], [312, 313, 314, 315, END]), ([304], [END])]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    recipe = Recipe()
    return SFTTrainer(
        model=load_causal_lm(ModelSection()),
        args=SFTConfig(
            **training_arguments(recipe.sft, recipe, tmp_path_factory.mktemp("sft")),
            completion_only_loss=True,
            packing=False,
        ),
        train_dataset=Dataset.from_list(
            [{"input_ids": p + r, "completion_mask": [0] * len(p) + [1] * len(r)} for p, r in ROWS]
        ),
        processing_class=load_tokenizer(ModelSection()),
    )


@torch.no_grad()
def test_it_is_the_mean_over_response_tokens(trainer):
    inputs = trainer.data_collator([trainer.train_dataset[at] for at in range(len(ROWS))])
    loss = trainer.compute_loss(trainer.model, dict(inputs))
    surprises = []
    for prompt, response in ROWS:
        logits = trainer.model(torch.tensor([prompt + response])).logits[0].tolist()
        surprises += [
            -reference.log_softmax(logits[len(prompt) + t - 1], 1.0)[token]
            for t, token in enumerate(response)
        ]
    assert loss.item() == pytest.approx(sum(surprises) / len(surprises), abs=1e-5)
