"""Memory of a server of vLLM that PPO starts, in both of its modes."""

from dataclasses import replace

from rlhfctl.plan.advice import suggestions, with_settings
from rlhfctl.plan.estimates import VLLM_SAMPLING, passes, peak_of_stage
from rlhfctl.plan.server import beside_server, server_of
from rlhfctl.plan.shadow import read_architecture
from rlhfctl.plan.stage_memory import Planned
from rlhfctl.plan.target import CUDA_CONTEXT, GIB, GPUS, LIBRARIES, Target
from tests.conftest import tiny_recipe
from tests.present import present

SMALL = Target("small", "cpu", 2 * GIB, bfloat16=False)


def test_ppo_has_what_the_server_of_vllm_leaves():
    recipe = with_settings(tiny_recipe(), {"ppo.engine": "vllm"})
    architecture = read_architecture(recipe.model)
    planned = Planned(recipe, architecture, GPUS["T4"])
    server = server_of(planned)
    assert server is not None
    assert server.memory == int(0.3 * 15 * GIB)
    assert server.weights == 2 * architecture.parameters
    assert beside_server(planned).target.usable == GPUS["T4"].usable - server.memory
    assert set(passes(planned, "ppo")) == {"update", "scoring"}
    vllm = recipe.ppo.vllm.model_copy(update={"gpu_memory_utilization": 0.01})
    small = server_of(replace(planned, recipe=with_settings(recipe, {"ppo.vllm": vllm})))
    assert small is not None
    assert small.cache < 0
    on_cpu = server_of(replace(planned, target=SMALL))
    assert on_cpu is not None
    assert on_cpu.memory == 4 * architecture.parameters + GIB + LIBRARIES
    running = vllm.model_copy(update={"server_base_url": ["http://localhost:8000"]})
    elsewhere = replace(planned, recipe=with_settings(recipe, {"ppo.vllm": running}))
    assert server_of(elsewhere) is None
    assert beside_server(elsewhere) is elsewhere
    assert server_of(replace(planned, recipe=tiny_recipe())) is None


def test_a_server_that_sleeps_between_rollouts_leaves_its_memory_to_the_update():
    recipe = with_settings(tiny_recipe(), {"ppo.engine": "vllm", "ppo.vllm.mode": "colocate"})
    planned = Planned(recipe, read_architecture(recipe.model), GPUS["T4"])
    server = present(server_of(planned))
    assert (server.memory, server.asleep) == (int(0.3 * 15 * GIB), CUDA_CONTEXT)
    beside = beside_server(planned)
    assert beside.target.usable == GPUS["T4"].usable - CUDA_CONTEXT
    assert beside_server(beside) == beside
    assert server_of(beside) == server
    computed = passes(beside, "ppo")
    assert set(computed) == {"update", "scoring", VLLM_SAMPLING}
    sampling = computed[VLLM_SAMPLING]()
    update = computed["update"]()
    assert sampling.bytes["kv_cache"] == server.memory - CUDA_CONTEXT - server.weights
    assert sampling.bytes["weights"] == update.bytes["weights"] + server.weights
    assert sampling.bytes["optimizer"] <= update.bytes["optimizer"]
    assert sampling.bytes["activations"] < 1024


def test_a_server_that_leaves_too_little_should_sleep_and_one_that_is_too_large_be_smaller():
    recipe = with_settings(
        tiny_recipe(),
        {"ppo.engine": "vllm", "ppo.vllm.gpu_memory_utilization": 0.999},
    )
    planned = beside_server(Planned(recipe, read_architecture(recipe.model), GPUS["T4"]))
    advice = suggestions(planned, "ppo", "update")
    assert {"ppo.vllm.mode": "colocate"} in [each.settings for each in advice]
    sleeping = with_settings(recipe, {"ppo.vllm.mode": "colocate"})
    planned = beside_server(replace(planned, recipe=sleeping))
    assert peak_of_stage(planned, "ppo").name == VLLM_SAMPLING
    [smaller] = [a for a in suggestions(planned, "ppo", VLLM_SAMPLING) if a.verdict == "fits"]
    assert smaller.settings == {"ppo.vllm.gpu_memory_utilization": 0.499}
