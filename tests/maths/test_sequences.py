"""The layout of prompts and responses: lengths decide, token ids never do."""

import torch

from rlhfctl.maths.sequences import Sequences

PAD = 0
BATCH = Sequences.from_lists([[5, 0, 7], [8]], [[1, 2], [3, 0, 0, 4]], PAD)


def test_rows_are_right_padded():
    assert BATCH.ids.tolist() == [[5, 0, 7, 1, 2], [8, 3, 0, 0, 4]]


def test_pad_ids_inside_prompt_or_response_are_tokens_like_any_other():
    assert BATCH.mask.tolist() == [[True, True, False, False], [True, True, True, True]]
    assert BATCH.responses[1].tolist() == [3, 0, 0, 4]
    assert BATCH.last_positions.tolist() == [4, 4]


def test_masked_positions_repeat_the_last_token():
    assert BATCH.response_positions.tolist() == [[3, 4, 4, 4], [1, 2, 3, 4]]


def test_selected_rows_are_cut_to_the_longest_of_them():
    batch = Sequences.from_lists([[1], [2]], [[3], [4] * 6], PAD)
    part = batch.select(torch.tensor([0]))
    assert part.ids.tolist() == [[1, 3]]


def test_chunks_cover_every_row_once():
    batch = Sequences.from_lists([[1]] * 5, [[2] * n for n in (4, 1, 3, 2, 5)], PAD)
    seen = [int(row) for rows, _ in batch.in_chunks(2) for row in rows]
    assert sorted(seen) == [0, 1, 2, 3, 4]
