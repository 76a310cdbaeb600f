"""vLLM's policy is ours: the same distribution by its own log-probabilities, and by what it samples."""

import pytest
import torch

from rlhfctl.errors import DivergedError, EnvironmentFault
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.engine import mismatch, padded, require_agreement
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo.vllm_engine import VLLMEngine
from rlhfctl.stages.shared.http_post import get
from rlhfctl.stages.shared.timed_calls import run_async
from tests.conftest import tiny_recipe
from tests.present import present
from tests.vllm.conftest import PYTHON

FP32 = 1e-4
"""Nats per token between two programs that compute in fp32."""


def open_roles(run, recipe):
    from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

    inputs = {name: run.stage(name) for name in ("sft", "rm")}
    return open_roles(open_stage_context(recipe), inputs, critic="reward_model")


@pytest.fixture(scope="module")
def engine(tiny_run, address, tmp_path_factory):
    recipe = tiny_recipe(
        "ppo.engine=vllm", f"ppo.vllm.server_base_url={address}", "generation.temperature=0.7"
    )
    roles = open_roles(tiny_run, recipe)
    engine = VLLMEngine(recipe, roles, tmp_path_factory.mktemp("output"), NullMonitor())
    with engine.running():
        yield engine


PROMPTS = [[5 + n % 7, 40 + n, 100 + 3 * n, 200 + n] for n in range(48)]
SEEDS = [(0, 0, n) for n in range(48)]


def sampled(engine, prompts=PROMPTS, seeds=SEEDS):
    """Responses, their batch, and the engine's log-probabilities of them."""
    done: list[int] = []
    responses = engine.sample(prompts, seeds, done.append)
    assert sorted(done) == list(range(1, len(prompts) + 1))
    batch = Sequences.from_lists(prompts, responses.ids, engine.roles.pad_token_id)
    return responses, batch, padded(responses.log_probs, batch)


def difference(engine, batch, of_engine, role="policy"):
    ours = engine.roles.log_probs(role, batch).log_probs
    return mismatch(ours, of_engine, batch.mask)


def change_policy(engine, by):
    """Move every weight of the policy's adapter by noise."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in engine.roles.trainable("policy").values():
            weight.add_(by * torch.randn(weight.shape, generator=generator))


def test_log_probabilities_are_those_of_the_training_pass(engine):
    _, batch, of_engine = sampled(engine)
    assert difference(engine, batch, of_engine)[1] < FP32


def test_a_changed_policy_is_sent_and_nothing_of_the_old_one_is_reused(engine):
    """Also not the cached states of prompts: the same prompts, long enough to be cached."""
    prompts = [[5 + n % 7, *range(40, 88), 200 + n] for n in range(8)]
    first, _, _ = sampled(engine, prompts, SEEDS[:8])
    change_policy(engine, 0.05)
    second, batch, of_engine = sampled(engine, prompts, SEEDS[:8])
    assert first.ids != second.ids
    assert difference(engine, batch, of_engine)[1] < FP32
    # The reference has not moved, so the bound tells one policy from the other.
    apart, _ = difference(engine, batch, of_engine, role="reference")
    assert apart > 0.1
    reference = engine.roles.log_probs("reference", batch).log_probs
    with pytest.raises(DivergedError, match="differ from the policy's by"):
        require_agreement(reference, of_engine, batch.mask, 0.1)


def test_the_same_seeds_give_the_same_responses_in_any_company(engine):
    first, _, _ = sampled(engine)
    again, _, _ = sampled(engine, PROMPTS[20:30], SEEDS[20:30])
    assert again.ids == first.ids[20:30]
    other, _, _ = sampled(engine, PROMPTS[20:30], SEEDS[30:40])
    assert other.ids != again.ids


def test_responses_end_at_the_stop_tokens_and_nowhere_else(engine):
    responses, _, _ = sampled(engine)
    stops, limit = set(engine.roles.stop_token_ids), engine.roles.max_new_tokens
    assert any(len(ids) < limit for ids in responses.ids)
    for ids in responses.ids:
        assert not stops & set(ids[:-1])
        assert ids[-1] in stops or len(ids) == limit


def test_samples_have_the_frequencies_of_the_policy(engine):
    """A goodness-of-fit test of first tokens that knows nothing of the engine's log-probabilities."""
    count, prompt = 2_000, PROMPTS[0]
    responses, _, _ = sampled(engine, [prompt] * count, [(7, 0, n) for n in range(count)])
    seen = torch.bincount(
        torch.tensor([ids[0] for ids in responses.ids]), minlength=engine.roles.vocabulary
    ).double()
    every = range(engine.roles.vocabulary)
    batch = Sequences.from_lists([prompt] * len(every), [[token] for token in every], 0)
    expected = count * engine.roles.log_probs("policy", batch).log_probs[:, 0].double().exp()
    assert float(expected.sum()) == pytest.approx(count, rel=1e-4)
    frequent = expected >= 5
    pooled = [torch.cat([part[frequent], part[~frequent].sum()[None]]) for part in (seen, expected)]
    statistic = float(((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum())
    freedom = int(frequent.sum())
    # Mean and standard deviation of chi squared; five deviations are no chance.
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


def test_whole_responses_are_as_probable_as_samples_of_the_policy_are(engine):
    """Log-probability plus entropy of each token has mean 0 under the policy, at every position."""
    prompts = [PROMPTS[n % 48] for n in range(1_500)]
    responses, batch, _ = sampled(engine, prompts, [(8, 0, n) for n in range(1_500)])
    ours = engine.roles.log_probs("policy", batch)
    excess = (ours.log_probs + ours.entropy)[batch.mask].double()
    assert len(excess) == sum(map(len, responses.ids))
    # A sum of martingale differences: its variance is the sum of theirs.
    deviations = float(excess.sum() / excess.square().sum().sqrt())
    assert abs(deviations) < 4, deviations


def test_more_prompts_than_one_pass_takes_do_not_end_the_server(engine):
    """Prompts that a pass would take in part, which seeded sampling on a CPU does not survive."""
    prompts = [[5 + n % 7, *range(40, 95), 200 + n % 300] for n in range(400)]
    responses, _, _ = sampled(engine, prompts, [(9, 0, n) for n in range(400)])
    assert len(responses.ids) == 400


def test_a_server_that_cannot_read_the_adapter_says_so(engine, monkeypatch, tmp_path):
    monkeypatch.setattr(engine.roles.models, "save_policy", lambda folder: folder.mkdir())
    with pytest.raises(EnvironmentFault, match="vLLM"):
        engine.sample(PROMPTS[:1], SEEDS[:1], lambda _: None)


async def is_sleeping(server):
    async with server.client() as client:
        return (await get(client, f"{server.url}/is_sleeping", 5.0)).json()["is_sleeping"]


def test_a_server_that_sleeps_between_rollouts_samples_the_changed_policy_after_waking(
    tiny_run, tmp_path
):
    """vLLM frees no memory on a CPU, but sleeps: a request that does not wake it would wait."""
    settings = ["ppo.engine=vllm", "ppo.vllm.mode=colocate", f"ppo.vllm.python={PYTHON}"]
    recipe = tiny_recipe(*settings, "ppo.vllm.server_timeout=300", "ppo.vllm.request_timeout=120")
    engine = VLLMEngine(recipe, open_roles(tiny_run, recipe), tmp_path, NullMonitor())
    with engine.running():
        server = present(engine.own).address
        assert run_async(is_sleeping(server))
        first, batch, of_engine = sampled(engine)
        assert difference(engine, batch, of_engine)[1] < FP32
        assert run_async(is_sleeping(server))
        change_policy(engine, 0.05)
        second, batch, of_engine = sampled(engine)
        assert difference(engine, batch, of_engine)[1] < FP32
        assert first.ids != second.ids
