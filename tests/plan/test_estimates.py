"""Peaks by fake tensors: extrapolation against whole steps, and against what is known exactly."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rlhfctl.plan.advice import with_settings
from rlhfctl.plan.layers import peak_of
from rlhfctl.plan.live_bytes import LiveBytes, Split
from rlhfctl.plan.packed import packed_bytes
from rlhfctl.plan.ppo_memory import ppo_update_peak, sampling_peak
from rlhfctl.plan.shadow import read_architecture
from rlhfctl.plan.stage_memory import Planned, dpo_peak, sft_peak
from rlhfctl.plan.target import GIB, GPUS, Target
from rlhfctl.plan.verdict import verdict
from rlhfctl.plan.work import ppo_work
from rlhfctl.recipe.schema import Recipe
from tests.conftest import tiny_recipe
from tests.present import present

SMALL = Target("small", "cpu", 2 * GIB, bfloat16=False)


def test_a_storage_counts_once_and_until_it_is_freed():
    live = LiveBytes()
    with FakeTensorMode(), live:
        held = torch.zeros(1000)
        view = held[:10]
        freed = torch.zeros(500)
        del freed
        live.enter("later")
        torch.zeros(100, dtype=torch.int64)
        del view
    assert live.peaks["start", -1].total == 4 * 1500
    assert live.peaks["later", -1].total == 4 * 1000 + 8 * 100


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}])
def test_a_few_layers_tell_the_peak_of_all(lora):
    recipe = Recipe.model_validate({"lora": lora, "sft": {"max_length": 32}})
    planned = Planned(recipe, read_architecture(recipe.model), SMALL)
    assert planned.architecture.alike
    whole = replace(planned, architecture=replace(planned.architecture, alike=False))
    assert sft_peak(planned).bytes == sft_peak(whole).bytes


def test_dpo_holds_the_policys_passes_and_the_reference():
    recipe = Recipe.model_validate({"lora": None, "dpo": {"max_length": 16}})
    planned = Planned(recipe, read_architecture(recipe.model), SMALL)
    whole = replace(planned, architecture=replace(planned.architecture, alike=False))
    peak = dpo_peak(planned).bytes
    assert peak == dpo_peak(whole).bytes
    model = 4 * planned.architecture.parameters
    assert peak["weights"] == pytest.approx(2 * model, rel=1e-3)  # and buffers
    assert peak["optimizer"] == pytest.approx(2 * model, rel=1e-3)  # the policy's alone


def test_layers_that_differ_are_run_whole():
    steps = []

    def step(layers):
        steps.append(layers)
        return {("start", -1): Split({"weights": 10 * layers})}

    assert peak_of(step, 9, alike=False).total == 90
    assert peak_of(step, 9, alike=True).total == 90
    assert steps == [9, 3, 4]


def test_packed_weights_take_the_bytes_of_bitsandbytes():
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(torch.randn(512, 384), compress_statistics=True, quant_type="nf4")
    real = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert packed_bytes(512 * 384, 4, 512) == real


def test_the_work_of_ppo_follows_from_the_recipe():
    recipe = tiny_recipe()
    architecture = read_architecture(recipe.model)
    work = ppo_work(Planned(recipe, architecture, GPUS["T4"]), Split({"adapters": 400}))
    assert work.steps == 2 * 2 * 2
    assert work.tokens == 32 * (64 + 16)
    assert work.disk_bytes == 2 * (12 * 100 + 2**19) + 4 * 100 + 2**19


@pytest.mark.parametrize(("overrides", "trained"), [((), "adapters"), (("lora=null",), "weights")])
def test_a_head_on_the_policy_takes_no_memory_of_its_own(overrides, trained):
    """As without a critic: no weights, gradients and moments of a second network."""
    own, head, none = (
        Planned(recipe, read_architecture(recipe.model), GPUS["T4"])
        for recipe in (
            tiny_recipe(*overrides, f"ppo.{key}")
            for key in ("critic=adapter", "critic=head", "advantage_estimator=batch_mean")
        )
    )
    with_own, with_head = ppo_update_peak(own), ppo_update_peak(head)
    assert with_head.total < with_own.total
    assert with_head.bytes["optimizer"] == pytest.approx(with_own.bytes["optimizer"] / 2, rel=1e-3)
    if overrides:
        without = ppo_update_peak(none).bytes
        assert with_head.bytes[trained] == without[trained] < with_own.bytes[trained]
    split = Split({"adapters": 400, "weights": 0})
    works = [ppo_work(planned, split) for planned in (own, head, none)]
    assert present(works[0].seconds) > present(works[1].seconds) == works[2].seconds


def test_a_verdict_depends_on_the_room():
    target = GPUS["A100-80"]
    sizes = (0.89, 0.95, 1.01)
    assert [verdict(int(share * target.usable), target) for share in sizes] == [
        *("fits", "tight", "no")
    ]


def test_the_cache_of_sampling_holds_every_token_once():
    """Rows times tokens times layers times heads; a layer's own tokens are joined to new ones."""
    recipe = with_settings(
        tiny_recipe(), {"generation.max_prompt_length": 500, "generation.max_new_tokens": 1000}
    )
    planned = Planned(recipe, read_architecture(recipe.model), SMALL)
    text = planned.architecture.config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    layer = 2 * 4 * text.num_key_value_heads * head  # keys and values in fp32
    rows, (prompt, response) = 8, planned.lengths
    tokens = rows * (prompt + response)
    cache = sampling_peak(planned, rows, training=False).bytes["kv_cache"]
    assert layer * text.num_hidden_layers * (tokens - rows) <= cache
    assert cache <= layer * (text.num_hidden_layers + 1) * tokens


def test_a_static_cache_takes_its_whole_size_at_once():
    """Rows times its length, 1,536 for 500 + 1,000 tokens, and nothing is joined to it."""
    settings = {"generation.max_prompt_length": 500, "generation.max_new_tokens": 1000}
    recipe = with_settings(tiny_recipe(), settings | {"generation.cache_implementation": "static"})
    planned = Planned(recipe, read_architecture(recipe.model), SMALL)
    text = planned.architecture.config.get_text_config()
    layer = 2 * 4 * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    cache = sampling_peak(planned, 8, training=False).bytes["kv_cache"]
    assert cache == pytest.approx(8 * 1536 * layer * text.num_hidden_layers, rel=0.02)
