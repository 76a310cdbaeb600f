"""Sampling by inverse CDF: exact frequencies, and nobody's draw depends on another's."""

import torch

from rlhfctl.maths.sampling import first_maximum, inverse_cdf, uniform_numbers


def test_evenly_spread_numbers_give_each_token_its_exact_share():
    probabilities = torch.tensor([0.4, 0.0, 0.25, 0.2, 0.1, 0.05])
    numbers = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    tokens = inverse_cdf(probabilities.log().expand(2000, -1), numbers, temperature=1.0)
    shares = torch.bincount(tokens, minlength=6) / 2000
    torch.testing.assert_close(shares, probabilities, atol=1e-3, rtol=0)
    assert shares[1] == 0


def test_the_temperature_divides_the_logits():
    logits = torch.tensor([1.0, 0.0, -2.0])
    numbers = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens = inverse_cdf(logits.expand(4000, -1), numbers, temperature=0.5)
    shares = torch.bincount(tokens, minlength=3) / 4000
    torch.testing.assert_close(shares, (logits / 0.5).softmax(0), atol=1e-3, rtol=0)


def test_the_ends_of_the_range_are_tokens_that_can_be_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    ends = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert inverse_cdf(logits, ends, 1.0).tolist() == [1, 2]


def test_the_rarest_token_of_a_large_vocabulary_is_not_lost():
    logits = torch.zeros(1, 150_000)
    numbers = torch.tensor([149_999.5 / 150_000], dtype=torch.float64)
    assert inverse_cdf(logits, numbers, 1.0).item() == 149_999


def test_tail_tokens_below_single_precision_are_drawn_exactly():
    """Tail probabilities of 1e-9 behind a cumulated 0.9999, where fp32 resolves only 6e-8."""
    tail = 100_000
    logits = torch.full((tail + 1,), 1e-9).log()
    logits[0] = 0.0
    probabilities = logits.softmax(0).double()
    tokens = torch.arange(1, tail + 1, 997)
    ends = probabilities.cumsum(0)
    numbers = (ends[tokens] - probabilities[tokens] / 2) / ends[-1]
    drawn = inverse_cdf(logits.expand(len(tokens), -1), numbers, 1.0)
    assert drawn.tolist() == tokens.tolist()


def test_random_numbers_of_an_episode_do_not_depend_on_its_batch():
    together = uniform_numbers([(0, 3, 7), (0, 3, 8)], 16)
    assert torch.equal(uniform_numbers([(0, 3, 8)], 16)[0], together[1])
    assert torch.equal(uniform_numbers([(0, 3, 8)], 4)[0], together[1, :4])
    assert not torch.equal(together[0], together[1])
    assert together.min() >= 0.0
    assert together.max() < 1.0


def test_a_row_without_a_distribution_gets_an_id_beyond_the_vocabulary():
    logits = torch.tensor([[0.0, torch.nan, 0.0], [0.0, torch.inf, 0.0], [0.0, -torch.inf, 0.0]])
    numbers = torch.tensor([0.4, 0.4, 0.4], dtype=torch.float64)
    assert inverse_cdf(logits, numbers, 1.0).tolist() == [3, 3, 0]


def test_the_first_of_equal_maxima_is_the_most_probable_token():
    logits = torch.tensor([[0.0, 3.0, 3.0], [5.0, -torch.inf, 1.0], [torch.nan, 1.0, 0.0]])
    assert first_maximum(logits).tolist() == [1, 0, 3], "3 says that the row has no distribution"
