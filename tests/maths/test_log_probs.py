"""Log-probabilities in chunks: the same as of the whole, in value and gradient, and smaller."""

import pytest
import torch

from rlhfctl.maths.log_probs import token_log_probs
from tests.reference import ppo_reference as reference

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


@pytest.fixture
def head():
    torch.manual_seed(3)
    return torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)


@pytest.fixture
def states():
    torch.manual_seed(4)
    return torch.randn(TOKENS, HIDDEN) * 3, torch.randint(0, VOCABULARY, (TOKENS,))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_values_and_entropy_are_those_of_the_reference(head, states, temperature):
    hidden, targets = states
    result = token_log_probs(head, hidden, targets, VOCABULARY, temperature)
    logits = head(hidden).double().tolist()
    for at, row in enumerate(logits):
        expected = reference.log_softmax(row, temperature)[targets[at]]
        assert result.log_probs[at].item() == pytest.approx(expected, abs=1e-5)
        assert result.entropy[at].item() == pytest.approx(
            reference.entropy(row, temperature), abs=1e-5
        )


def test_chunks_change_neither_values_nor_gradients(head, states):
    hidden, targets = states
    gradients = []
    for chunk_elements in (10**9, 5 * VOCABULARY):
        leaf = hidden.clone().requires_grad_()
        result = token_log_probs(
            head, leaf, targets, VOCABULARY, chunk_elements=chunk_elements
        ).log_probs
        result.sum().backward()
        gradients.append((result.detach(), leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-6)


def test_no_more_logits_exist_at_a_time_than_a_chunk_holds(states):
    hidden, targets = states
    sizes = []
    layer = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def head(part):
        sizes.append(part.shape[0] * VOCABULARY)
        return layer(part)

    token_log_probs(head, hidden, targets, VOCABULARY, chunk_elements=4 * VOCABULARY)
    assert max(sizes) <= 4 * VOCABULARY


def test_bfloat16_logits_are_judged_in_single_precision(head, states):
    hidden, targets = states
    exact = token_log_probs(head, hidden, targets, VOCABULARY).log_probs
    rounded = token_log_probs(head.bfloat16(), hidden.bfloat16(), targets, VOCABULARY).log_probs
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.1
