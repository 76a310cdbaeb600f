"""Logits from decoder states by the model's own code: caps, scales, biases and further layers."""

import pytest
import torch

from benchmarks.tiny_models import VOCABULARY, tiny_model
from rlhfctl.errors import EnvironmentFault
from rlhfctl.maths.log_probs import token_log_probs
from rlhfctl.models.base import decoder_of
from rlhfctl.models.lm_head import LMHead, check_language_model

CHANGING = {
    "gemma2": {},  # caps logits
    "granite": {},  # divides them
    "minicpm3": {},  # divides the states
    "falcon_h1": {},  # multiplies them
    "gptj": {},  # adds a bias
    "bert": {"is_decoder": True},  # has a layer before the projection
}


def ids_of(rows, width, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, width), generator=generator)


@pytest.fixture(params=CHANGING)
def model(request):
    model = tiny_model(request.param, **CHANGING[request.param])
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model


def test_logits_and_gradients_are_the_models_own(model):
    ids = ids_of(1, 9)
    weight = model.get_input_embeddings().weight
    expected = model(ids, use_cache=False).logits[0].log_softmax(-1)
    wanted = torch.autograd.grad(expected[2:, 5].sum(), weight)[0]

    states = decoder_of(model)(ids, use_cache=False)[0][0]
    flat = token_log_probs(
        LMHead(model), states[2:], torch.full((7,), 5), VOCABULARY, chunk_elements=3 * VOCABULARY
    )
    torch.testing.assert_close(flat.log_probs, expected[2:, 5])
    found = torch.autograd.grad(flat.log_probs.sum(), weight)[0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    bare = model.get_output_embeddings().weight
    if bare.shape[1] == states.shape[1]:
        plain = (states @ bare.T).log_softmax(-1)[2:, 5]
        assert (plain - expected[2:, 5]).abs().max() > 0.1, "the head alone would do here"


def test_the_model_keeps_its_decoder(model):
    decoder = decoder_of(model)
    LMHead(model)(torch.zeros(2, 32))
    assert decoder_of(model) is decoder
    assert check_language_model(model, decoder, torch.device("cpu")) == VOCABULARY


def test_a_model_that_sees_later_tokens_is_refused():
    model = tiny_model("bert", is_decoder=False)
    with pytest.raises(EnvironmentFault, match="not causal"):
        check_language_model(model, decoder_of(model), torch.device("cpu"))


def test_a_model_whose_logits_need_more_than_states_is_refused(monkeypatch):
    model = tiny_model("llama")
    plain = type(model).forward

    def by_first_token(self, input_ids, **rest):
        output = plain(self, input_ids, **rest)
        output.logits = output.logits + input_ids[:, :1, None]
        return output

    monkeypatch.setattr(type(model), "forward", by_first_token)
    with pytest.raises(EnvironmentFault, match="more than its decoder's states"):
        check_language_model(model, decoder_of(model), torch.device("cpu"))
