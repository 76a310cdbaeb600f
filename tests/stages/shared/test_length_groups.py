"""Batches of rows of about the same length."""

import random

import pytest
from datasets import Dataset

from rlhfctl.stages.shared.length_groups import SeededLengthGroups, row_lengths
from tests.stages.shared.small_trainers import trainer_of


def padding(order, lengths, batch):
    groups = [
        [lengths[row] for row in order[at : at + batch]] for at in range(0, len(order), batch)
    ]
    return sum(max(group) * len(group) - sum(group) for group in groups)


def test_an_epoch_has_every_row_once_in_an_order_of_its_own_with_little_padding():
    lengths = [random.Random(n).randrange(10, 500) for n in range(400)]
    sampler, again = (SeededLengthGroups(8, lengths, seed=3) for _ in range(2))
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        again.set_epoch(epoch)
        orders.append(list(sampler))
        assert orders[-1] == list(again)
        assert sorted(orders[-1]) == list(range(400))
    assert orders[0] != orders[1]
    assert padding(orders[0], lengths, 8) < padding(range(400), lengths, 8) / 4


def test_the_length_of_a_pair_is_that_of_its_longer_side():
    rows = {"chosen_ids": [[1], [1, 2, 3]], "rejected_ids": [[1, 2], [1]], "margin": [1.0, 2.0]}
    assert row_lengths(Dataset.from_dict(rows)) == [2, 3]


@pytest.mark.parametrize("stage", ["sft", "rm"])
def test_the_trainers_take_the_sampler(tmp_path, stage):
    trainer = trainer_of(stage, tmp_path, group_by_length=True)
    assert trainer._get_train_sampler().lengths == [4 if stage == "sft" else 5] * 12
    assert not hasattr(trainer_of(stage, tmp_path)._get_train_sampler(), "lengths")
