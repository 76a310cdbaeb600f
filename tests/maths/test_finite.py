"""NaN and infinite numbers are found in any float tensor, and nothing else is."""

import math

import pytest
import torch

from rlhfctl.maths.finite import first_not_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_tensor_is_named(bad, dtype):
    tensors = {name: torch.randn(3, 4).to(dtype) for name in "abc"}
    assert first_not_finite(tensors) is None
    tensors["b"][2, 1] = bad
    assert first_not_finite(tensors) == "b"


def test_the_largest_numbers_integers_and_empty_tensors_are_fine():
    largest = torch.tensor([torch.finfo(torch.float32).max, -torch.finfo(torch.float32).max])
    others = {"empty": torch.zeros(0), "ids": torch.tensor([2**62])}
    assert first_not_finite({"largest": largest} | others) is None
    assert first_not_finite({}) is None
