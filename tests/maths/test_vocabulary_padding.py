"""Rows of an LM head beyond the vocabulary: part of no softmax."""

import torch

from rlhfctl.maths.log_probs import token_log_probs

HIDDEN, VOCABULARY, ROWS = 8, 50, 64


def test_rows_beyond_the_vocabulary_change_neither_log_probs_nor_entropy():
    torch.manual_seed(5)
    padded = torch.nn.Linear(HIDDEN, ROWS, bias=False)
    exact = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
    with torch.no_grad():
        padded.weight[VOCABULARY:] = 10.0
        exact.weight.copy_(padded.weight[:VOCABULARY])
    hidden, targets = torch.rand(9, HIDDEN), torch.randint(0, VOCABULARY, (9,))
    result = token_log_probs(padded, hidden, targets, VOCABULARY)
    expected = token_log_probs(exact, hidden, targets, VOCABULARY)
    torch.testing.assert_close(result, expected)
