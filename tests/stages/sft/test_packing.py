"""Packs: every row is trained on as if it were alone, and a resumed training repeats their order."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from rlhfctl.errors import RecipeError
from rlhfctl.models.base import load_causal_lm
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.load import load_recipe, shipped_recipe
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.recipe.training import SFTSection
from rlhfctl.stages.sft.packing import Packs, packing_arguments, require_separate_rows
from rlhfctl.stages.sft.stage import _Trainer
from rlhfctl.stages.shared.hf_training import training_arguments
from tests.stages.shared.small_trainers import trainer_of, weights

END = 1
ROWS = [
    ([300, 301, 302], [310, 311, END]),
    ([303], [312, 313, 314, 315, END]),
    ([304], [END]),
    ([305, 306], [316, END]),
]


def trainer(folder, attention="sdpa", **changes):
    section = SFTSection(max_length=10, per_device_train_batch_size=4).model_copy(update=changes)
    arguments = training_arguments(section, Recipe(), folder) | packing_arguments(section)
    rows = [{"input_ids": p + r, "completion_mask": [0] * len(p) + [1] * len(r)} for p, r in ROWS]
    return _Trainer(
        model=load_causal_lm(ModelSection(attn_implementation=attention)),
        args=SFTConfig(**arguments, completion_only_loss=True),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(ModelSection()),
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_and_its_gradient_are_those_of_the_rows_alone(tmp_path, attention):
    packed = trainer(tmp_path, attention, packing=True)
    assert Packs.of(packed) == Packs(count=2, fill_ratio=18 / 20)
    inputs = packed.data_collator([packed.train_dataset[at] for at in range(2)])
    assert inputs["input_ids"].shape == (1, 18)
    packed.compute_loss(packed.model, dict(inputs)).backward()
    gradients = [p.grad.clone() for p in packed.model.parameters()]
    packed.model.zero_grad()

    total = torch.zeros(())
    for prompt, response in ROWS:
        logits = packed.model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        labels = torch.tensor(response)
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    mean = total / sum(len(response) for _, response in ROWS)
    mean.backward()
    for gradient, weight in zip(gradients, packed.model.parameters(), strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-3)
    loss = packed.compute_loss(packed.model, dict(inputs))
    assert loss.item() == pytest.approx(mean.item(), abs=1e-5)
    require_separate_rows(packed, attention)


def test_evaluation_does_not_depend_on_packing(tmp_path):
    metrics = [
        trainer(tmp_path / str(packing), packing=packing).evaluate() for packing in (False, True)
    ]
    for name in ("eval_loss", "eval_mean_token_accuracy"):
        assert metrics[0][name] == metrics[1][name]


def test_a_model_that_ignores_position_ids_is_refused(tmp_path):
    packed = trainer(tmp_path, packing=True)
    forward = packed.model.forward

    def blind(self, *args, position_ids=None, **kwargs):
        return forward(*args, **kwargs)

    packed.model.forward = MethodType(blind, packed.model)
    with pytest.raises(RecipeError, match="rows of a pack see each other with mine/kernels"):
        require_separate_rows(packed, "mine/kernels")


@pytest.mark.parametrize("changes", [{"packing": True, "max_length": 9}, {"group_by_length": True}])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, changes):
    settings = {"num_train_epochs": 2.0, "keep_last": 20, **changes}
    whole = trainer_of("sft", tmp_path, **settings)
    whole.train()
    steps = whole.state.global_step
    assert steps == (6 if "packing" in changes else 12)
    for checkpoint in (1, steps // 2 + 1):
        resumed = trainer_of("sft", tmp_path, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoints/checkpoint-{checkpoint}"))
        assert all(
            torch.equal(weight, weights(whole)[name]) for name, weight in weights(resumed).items()
        )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.group_by_length=true", "packing leaves no padding for group_by_length"),
        ("auto_batch=true", "with sft.packing a batch is one sequence"),
    ],
)
def test_what_packs_do_not_combine_with_is_refused(override, said):
    path = shipped_recipe("base")
    assert path is not None
    with pytest.raises(RecipeError, match=said):
        load_recipe(path, ["sft.packing=true", override])
