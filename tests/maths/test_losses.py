"""The clipped losses and the Bradley-Terry loss: golden values, gradients, the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhfctl.maths.losses import (
    bradley_terry_loss,
    clipped_surrogate,
    clipped_value_loss,
    importance_ratio,
    truncated_importance_weights,
)
from tests.present import present
from tests.reference import ppo_reference as reference


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [(1, 1.3, -1.2, 0), (1, 0.5, -0.5, -0.5), (-1, 0.5, 0.8, 0), (-1, 1.3, 1.3, 1.3)],
)
def test_the_surrogate_and_its_gradient_by_the_log_prob(advantage, ratio, loss, gradient):
    new = torch.tensor(ratio, dtype=torch.float64).log().requires_grad_()
    value = clipped_surrogate(
        importance_ratio(new, torch.zeros_like(new)), torch.tensor(float(advantage)), 0.2
    ).loss
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert present(new.grad).item() == pytest.approx(gradient)


def test_truncated_importance_weights_are_probability_ratios_up_to_the_cap():
    ours, engine = [0.1, 0.2, 0.5, 0.9, 1e-30], [0.2, 0.1, 0.2, 0.8, 1.0]
    weights = truncated_importance_weights(
        torch.tensor(ours).log(), torch.tensor(engine).log(), 2.0
    )
    assert weights.tolist() == pytest.approx([0.5, 2.0, 2.0, 1.125, 0.0], abs=1e-6)
    longer = truncated_importance_weights(torch.tensor(ours).log(), torch.tensor(engine).log(), 3.0)
    assert longer.tolist() == pytest.approx([0.5, 2.0, 2.5, 1.125, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [(-1, 5, 3, 0), (-1, 2.5, 2.5, 2.5), (-1, 0.5, 0.8, 0), (1, 5, -1.2, 0), (1, 0.5, -0.5, -0.5)],
)
def test_the_dual_clip_bounds_the_loss_of_bad_actions_alone(advantage, ratio, loss, gradient):
    new = torch.tensor(float(ratio), dtype=torch.float64).log().requires_grad_()
    value, clipped = clipped_surrogate(
        new.exp(), torch.tensor(float(advantage), dtype=torch.float64), 0.2, dual_clip=3.0
    )
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert present(new.grad).item() == pytest.approx(gradient)
    assert bool(clipped) is (gradient == 0)


@pytest.mark.parametrize(
    ("value", "loss", "clipped"),
    [(0.9, 0.045, True), (0.6, 0.08, False), (0.1, 0.405, False), (1.5, 0.125, False)],
)
def test_the_value_loss_takes_the_worse_of_clipped_and_plain(value, loss, clipped):
    result = clipped_value_loss(
        torch.tensor(value), torch.tensor(0.5), torch.tensor(1.0), clip_range=0.2
    )
    assert result.loss.item() == pytest.approx(loss, abs=1e-6)
    assert bool(result.clipped) is clipped


def test_without_a_range_the_value_loss_is_half_the_squared_error():
    result = clipped_value_loss(torch.tensor(0.9), torch.tensor(0.5), torch.tensor(1.0), None)
    assert result.loss.item() == pytest.approx(0.005)
    assert not bool(result.clipped)


@pytest.mark.parametrize(
    ("d", "margin", "smoothing", "loss"),
    [
        (1, 0, 0, 0.313262),
        (1, 0, 0.1, 0.413262),
        (1, 1, 0, 0.693147),
        (-1, 0, 0, 1.313262),
        (-1, 0, 0.1, 1.213262),
    ],
)
def test_the_reward_model_loss_with_margin_and_smoothing(d, margin, smoothing, loss):
    value = bradley_terry_loss(torch.tensor(float(d)), torch.tensor(0.0), margin, smoothing)
    assert value.item() == pytest.approx(loss, abs=1e-6)


numbers = st.floats(-40, 40, allow_nan=False)


@settings(max_examples=150, deadline=None)
@given(numbers, numbers, st.floats(-5, 5), st.floats(0.05, 0.5))
def test_surrogates_agree_with_the_reference_even_at_huge_log_ratios(new, old, advantage, epsilon):
    ratio = importance_ratio(*(torch.tensor(x, dtype=torch.float64) for x in (new, old)))
    loss = clipped_surrogate(ratio, torch.tensor(advantage, dtype=torch.float64), epsilon).loss
    assert torch.isfinite(loss)
    expected = reference.surrogate(new, old, advantage, epsilon)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(numbers, numbers, numbers, st.one_of(st.none(), st.floats(0.05, 2)))
def test_value_losses_agree_with_the_reference(value, old, target, epsilon):
    values, old_values, targets = torch.tensor([value, old, target], dtype=torch.float64)
    loss = clipped_value_loss(values, old_values, targets, epsilon).loss
    expected = reference.value_loss(value, old, target, epsilon)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(numbers, numbers, st.floats(0, 3), st.floats(0, 0.4))
def test_reward_model_losses_agree_with_the_reference(chosen, rejected, margin, smoothing):
    scores = torch.tensor([chosen, rejected], dtype=torch.float64)
    loss = bradley_terry_loss(scores[0], scores[1], margin, smoothing)
    expected = reference.bradley_terry(chosen, rejected, margin, smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    new = torch.randn(6, dtype=torch.float64, requires_grad=True)
    old, advantages = torch.randn(2, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: clipped_surrogate(importance_ratio(x, old), advantages, 0.2).loss, (new,)
    )
    assert torch.autograd.gradcheck(
        lambda x: clipped_value_loss(x, old, advantages, 0.2).loss, (new,)
    )
