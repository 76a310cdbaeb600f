"""Padding enters no mean, no variance and no whitening."""

import pytest
import torch

from rlhfctl.maths.masking import length_mask, masked_mean, masked_variance, whiten

VALUES = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 0.0]])
MASK = length_mask(torch.tensor([3, 1]), 3)


def test_masks_come_from_lengths():
    assert MASK.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("padding", [100.0, float("nan"), float("inf")])
def test_what_stands_in_the_padding_does_not_matter(padding):
    dirty = torch.where(MASK, VALUES, padding)
    assert masked_mean(dirty, MASK).item() == 2.5
    assert masked_variance(dirty, MASK).item() == pytest.approx(1.25)
    torch.testing.assert_close(whiten(dirty, MASK), whiten(VALUES, MASK))


def test_whitened_values_have_mean_zero_and_deviation_one_at_any_padding():
    wide = torch.cat([VALUES, torch.full((2, 5), 9.0)], dim=1)
    wide_mask = length_mask(torch.tensor([3, 1]), 8)
    whitened = whiten(wide, wide_mask)
    assert abs(masked_mean(whitened, wide_mask).item()) < 1e-6
    assert masked_variance(whitened, wide_mask).item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(whitened[:, :3], whiten(VALUES, MASK))


def test_without_shift_values_are_scaled_about_their_mean():
    whitened = whiten(VALUES, MASK, shift_mean=False)
    assert masked_mean(whitened, MASK).item() == pytest.approx(2.5)
    assert masked_variance(whitened, MASK).item() == pytest.approx(1.0, abs=1e-5)


def test_one_token_whitens_to_zero_and_not_to_nan():
    one = whiten(torch.tensor([[5.0]]), torch.tensor([[True]]))
    assert one.item() == 0.0
