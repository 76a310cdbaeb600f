"""Settings that `ppo.engine: vllm` cannot have, each refused in one sentence."""

import pytest

from rlhfctl.errors import RecipeError
from tests.conftest import tiny_recipe

VLLM = "ppo.engine=vllm"
URL = "ppo.vllm.server_base_url=http://localhost:8000"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([VLLM, "lora=null"], "sends the server the policy's adapter"),
        ([VLLM, "model.resize_embeddings=true"], "takes no new embedding rows"),
        ([VLLM, "model.quantization=4bit"], "would differ from the base of the server"),
        ([URL, "ppo.vllm.mode=colocate"], "colocate starts a server beside training"),
        ([URL, "ppo.vllm.python=python"], "server_base_url names running ones"),
        (["ppo.vllm.server_base_url=localhost:8000"], r"not a valid http\(s\) address"),
        (["ppo.vllm.server_base_url=http://me:secret@host"], "user name"),
        (["ppo.vllm.server_base_url=[http://a, http://a]"], "twice"),
        (["ppo.vllm.api_key_env=sk-secret"], "name of an environment variable"),
    ],
)
def test_a_contradiction_is_refused(overrides, told):
    with pytest.raises(RecipeError, match=told) as caught:
        tiny_recipe(*overrides)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["lora=null"],
        [VLLM, URL, "model.quantization=4bit"],
        [VLLM, "ppo.vllm.mode=colocate"],
        [VLLM, "model.quantization=4bit", "ppo.vllm.server_args=[--quantization, bitsandbytes]"],
    ],
)
def test_what_can_work_is_accepted(overrides):
    tiny_recipe(*overrides)


def test_one_address_is_a_list_of_one():
    assert tiny_recipe(VLLM, URL).ppo.vllm.server_base_url == ["http://localhost:8000"]
