"""A whole rollout and its optimiser steps on real roles, against loops that share no code with them.

The gradients that the optimisers get are caught as they get them, whatever computes them.
"""

import hashlib
import math
from itertools import chain, combinations

import pytest
import torch

from tests.loaded_roles import loaded
from tests.ppo.whole import (
    BETA,
    EPISODES,
    LAMBDA,
    MISSING,
    TRAINED,
    close,
    episode_gradients,
    spoken,
    tokens_of,
    trained,
    valued,
)
from tests.present import present
from tests.reference import ppo_reference as reference


@pytest.fixture(params=["tiny_run", "tiny_4bit_run", "tiny_full_run"])
def roles(request):
    return loaded(request.getfixturevalue(request.param))


@pytest.fixture
def lora_roles(tiny_run):
    """For what does not depend on the kind of weights."""
    return loaded(tiny_run)


def test_a_rollout_is_that_of_the_slow_reference(roles):
    (rollout,), _, (metrics,) = trained(roles)
    lengths = rollout.sequences.response_lengths.tolist()
    assert len(set(lengths)) > 2, "lengths must differ for this to say anything"
    shaped, advantages, values, scores, entropies = [], [], [], [], []
    for row, length in enumerate(lengths):
        cells = [
            getattr(rollout, name)[row, :length].tolist()
            for name in ("log_probs", "reference_log_probs", "values")
        ]
        ids, start, _ = tokens_of(rollout, row)
        ended = int(ids[0, -1]) in roles.stop_token_ids
        score = float(rollout.model_scores[row]) if ended else MISSING
        assert float(rollout.scores[row]) == pytest.approx(score, abs=1e-6)
        with torch.no_grad():
            roles.models.activate("policy", training=False)
            logits = roles.models.language_model("policy")(ids).logits[0, start - 1 : -1]
        for t, token in enumerate(ids[0, start:].tolist()):
            expected = reference.log_softmax(logits[t].tolist(), roles.temperature)[token]
            entropies.append(reference.entropy(logits[t].tolist(), roles.temperature))
            assert cells[0][t] == pytest.approx(expected, abs=1e-5)
        scores.append(score)
        shaped.append(reference.rewards(cells[0], cells[1], score, BETA))
        advantages.append(reference.gae(shaped[-1], cells[2], 1.0, LAMBDA))
        values.append(cells[2])
    for row, white in enumerate(reference.whiten(advantages)):
        pairs = zip(advantages[row], values[row], strict=True)
        for found, expected in (
            (rollout.rewards, shaped[row]),
            (rollout.returns, [a + v for a, v in pairs]),
            (rollout.advantages, white),
        ):
            assert found[row, : len(white)].tolist() == pytest.approx(expected, abs=2e-5)
            assert bool((found[row, len(white) :] == 0).all())
    assert metrics["kl"] == 0.0
    assert metrics["response_length"] == sum(lengths) / EPISODES
    assert metrics["eos_share"] == sum(score != MISSING for score in scores) / EPISODES
    assert metrics["entropy"] == pytest.approx(sum(entropies) / sum(lengths), abs=1e-4)
    assert metrics["reward"] == pytest.approx(sum(map(sum, shaped)) / EPISODES, abs=1e-5)
    explained = reference.explained_variance(
        list(chain(*values)), rollout.returns[rollout.mask].tolist()
    )
    assert metrics["explained_variance"] == pytest.approx(explained, abs=1e-4)


def test_one_step_is_the_token_mean_whatever_the_size_of_a_forward_pass(roles):
    gradients = []
    for size in (EPISODES, 3, 1):
        (rollout,), steps, (metrics,) = trained(roles, forward_batch_size=size)
        assert [len(caught) for caught in steps.values()] == [1, 1]
        assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["approx_kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["policy_clip_fraction"] == 0.0
        assert metrics["value_clip_fraction"] == 0.0
        gradients.append({role: caught[0].gradient for role, caught in steps.items()})
    tokens = int(rollout.sequences.response_lengths.sum())
    expected = episode_gradients(roles, rollout)
    for found in gradients:
        for role, gradient in found.items():
            close(gradient, expected[role].sum(dim=0) / tokens)


def test_a_second_step_is_clipped_as_the_reference_clips(roles):
    """After a large first step ratios and values lie far from the old ones."""
    (rollout,), steps, (metrics,) = trained(
        roles, epochs=2, learning_rate=3e-3, value_learning_rate=3e-3, value_clip_range=0.05
    )
    for role, caught in steps.items():
        with torch.no_grad():
            for weight, kept in zip(roles.trainable(role).values(), caught[1].weights, strict=True):
                weight.copy_(kept)
    totals = dict.fromkeys(("policy_loss", "ratio_mean", "approx_kl", "value_loss"), 0.0)
    clipped, first, tokens = 0, 0.0, 0
    for row in range(EPISODES):
        now, values = spoken(roles, rollout, row).tolist(), valued(roles, rollout, row).tolist()
        for t, new in enumerate(now):
            old, gain = float(rollout.log_probs[row, t]), float(rollout.advantages[row, t])
            before, wanted = float(present(rollout.values)[row, t]), float(rollout.returns[row, t])
            totals["policy_loss"] += reference.surrogate(new, old, gain, 0.2)
            totals["ratio_mean"] += torch.tensor(new - old).exp().item()
            totals["approx_kl"] += reference.k3(old, new)
            totals["value_loss"] += reference.value_loss(values[t], before, wanted, 0.05)
            first += reference.value_loss(before, before, wanted, 0.05)
            clipped += reference.surrogate(new, old, gain, 0.2) > -gain * math.exp(new - old)
            tokens += 1
    assert clipped > 0, "the step must be large enough to be clipped"
    start = {"ratio_mean": 1.0, "value_loss": first / tokens}
    for name, total in totals.items():
        mean = (start.get(name, 0.0) + total / tokens) / 2
        assert metrics[name] == pytest.approx(mean, rel=1e-4, abs=1e-5), name
    assert metrics["policy_clip_fraction"] == pytest.approx(clipped / tokens / 2, abs=1e-6)
    expected = episode_gradients(roles, rollout, value_clip=0.05)
    for role, caught in steps.items():
        close(caught[1].gradient, expected[role].sum(dim=0) / tokens)


def test_gradients_are_clipped_per_network_and_the_norm_is_logged_before_clipping(lora_roles):
    _, steps, (free,) = trained(lora_roles)
    _, bounded, (metrics,) = trained(lora_roles, max_grad_norm=1e-3)
    for role, name in zip(TRAINED, ("policy_grad_norm", "value_grad_norm"), strict=True):
        whole, cut = steps[role][0].gradient, bounded[role][0].gradient
        assert metrics[name] == pytest.approx(float(whole.double().norm()), rel=1e-4)
        assert free[name] == pytest.approx(metrics[name], rel=1e-6)
        assert metrics[name] > 1e-2
        assert float(cut.double().norm()) == pytest.approx(1e-3, rel=1e-3)
        scale = float(whole.double().norm() / cut.double().norm())
        close(cut * scale, whole)


def test_the_optimisers_numbers_are_the_recipes_each_role_with_its_own_rate(lora_roles):
    _, steps, metrics = trained(
        lora_roles,
        episodes=4 * EPISODES,
        lr_schedule="linear",
        learning_rate=1e-6,
        value_learning_rate=2e-6,
        adam_beta1=0.8,
        adam_beta2=0.9,
        adam_epsilon=1e-5,
        weight_decay=0.01,
    )
    for role, rate in zip(TRAINED, (1e-6, 2e-6), strict=True):
        numbers = [step.numbers for step in steps[role]]
        assert [group["lr"] for group in numbers] == pytest.approx(
            [rate * share for share in (1.0, 0.75, 0.5, 0.25)]
        )
        assert numbers[0]["betas"] == (0.8, 0.9)
        assert numbers[0]["eps"] == 1e-5
        assert numbers[0]["weight_decay"] == 0.01
    assert [row["learning_rate"] for row in metrics] == pytest.approx([1e-6, 7.5e-7, 5e-7, 2.5e-7])


def test_the_controller_takes_kl_per_response_where_its_error_is_not_clipped(tiny_run):

    def metrics_at(target):
        _, _, metrics = trained(
            loaded(tiny_run),
            episodes=6 * EPISODES,
            learning_rate=1e-2,
            value_learning_rate=1e-2,
            kl_target=target,
            kl_horizon=1e6,  # beta hardly moves, so that KL is the same at every target
            kl_stop=None,
            max_ratio=None,
            kl_early_stop=None,
        )
        return metrics

    kl = [row["kl"] for row in metrics_at(1.0)]
    number = max(range(5), key=lambda index: kl[index])
    assert kl[number] > 0.1
    target = 1.1 * kl[number]
    rows = metrics_at(target)
    error = rows[number]["kl"] / target - 1.0
    assert -0.2 < error < 0.0, "the controller clips its error at 0.2"
    expected = rows[number]["beta"] * (1.0 + error * EPISODES / 1e6)
    change = rows[number + 1]["beta"] - rows[number]["beta"]
    assert change == pytest.approx(expected - rows[number]["beta"], rel=1e-3)


def test_controller_and_log_use_the_kl_of_training(lora_roles):
    """Nats a response: the sum over its tokens, the mean over responses."""
    rollouts, _, metrics = trained(
        lora_roles,
        episodes=3 * EPISODES,
        learning_rate=1e-3,
        value_learning_rate=1e-3,
        kl_target=0.02,
        kl_horizon=40.0,
        kl_stop=None,
    )
    beta = BETA
    for rollout, row in zip(rollouts, metrics, strict=True):
        kls = []
        for at, length in enumerate(rollout.sequences.response_lengths.tolist()):
            cells = zip(
                rollout.log_probs[at, :length].tolist(),
                rollout.reference_log_probs[at, :length].tolist(),
                strict=True,
            )
            kls.append([reference.k1(p, q) for p, q in cells])
            assert float(rollout.rewards[at].sum()) == pytest.approx(
                float(rollout.scores[at]) - beta * sum(kls[-1]), abs=1e-4
            )
        assert row["beta"] == pytest.approx(beta, rel=1e-6)
        assert row["kl"] == pytest.approx(sum(map(sum, kls)) / EPISODES, abs=1e-4)
        beta = reference.controller(beta, kls, 0.02, 40.0)
    assert metrics[0]["kl"] == 0.0
    assert abs(metrics[2]["kl"]) > 1e-3
    assert metrics[2]["beta"] != metrics[1]["beta"] != BETA


def test_minibatches_partition_each_epoch_and_each_is_one_step_of_its_own_token_mean(lora_roles):
    """Find the episodes of a step by trying: only one subset's mean fits."""
    (rollout,), steps, (metrics,) = trained(
        lora_roles, minibatch_size=2, forward_batch_size=1, epochs=2
    )
    lengths = rollout.sequences.response_lengths
    expected = episode_gradients(lora_roles, rollout)
    pairs = [torch.tensor(rows) for rows in combinations(range(EPISODES), 2)]
    taken: dict[str, list[list[int]]] = {}
    for role, caught in steps.items():
        assert len(caught) == metrics["updates"] == 2 * EPISODES / 2
        means = torch.stack([expected[role][rows].sum(0) / lengths[rows].sum() for rows in pairs])
        taken[role] = []
        for gradient in (step.gradient for step in caught):
            best = int((means - gradient).abs().amax(dim=1).argmin())
            close(gradient, means[best])
            taken[role].append(sorted(pairs[best].tolist()))
    assert taken["policy"] == taken["critic"]
    first, second = taken["policy"][: EPISODES // 2], taken["policy"][EPISODES // 2 :]
    for epoch in (first, second):
        assert sorted(chain(*epoch)) == list(range(EPISODES))
    assert sorted(first) != sorted(second), "each epoch has an order of its own"


def digests(roles):
    """A digest of every stored bit, by whose it is; quantised weights and their scales included."""
    role_models = roles.models
    parts: dict[tuple[str, str], torch.Tensor] = {}
    if hasattr(role_models, "models"):
        for role, model in role_models.models.items():
            parts |= {(role, name): value for name, value in model.state_dict().items()}
    else:
        for name, value in role_models.model.state_dict().items():
            role = next(
                (r for r in ("policy", "critic", "reference", "reward") if f".{r}." in name), "base"
            )
            parts[role, name] = value
    for role, head in (*role_models.score_heads.items(), ("critic", role_models.value_head)):
        parts |= {(role, f"head.{name}"): value for name, value in head.state_dict().items()}
    found: dict[str, hashlib._Hash] = {}
    for (role, name), value in sorted(parts.items()):
        bits = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        found.setdefault(role, hashlib.sha256()).update(name.encode() + bits)
    return {role: digest.hexdigest() for role, digest in found.items()}


def test_a_run_moves_policy_and_critic_and_not_a_bit_of_anything_else(roles):
    before = digests(roles)
    trained(
        roles,
        episodes=2 * EPISODES,
        minibatch_size=4,
        epochs=2,
        learning_rate=1e-3,
        value_learning_rate=1e-3,
        kl_stop=None,
    )
    after = digests(roles)
    moved = {role for role, digest in before.items() if after[role] != digest}
    assert moved == {"policy", "critic"}
    assert {"reference", "reward"} <= before.keys()


def test_a_rollout_and_its_update_leave_every_gradient_empty(lora_roles):
    trained(lora_roles)
    left = [
        name
        for role in ("policy", "critic")
        for name, weight in lora_roles.trainable(role).items()
        if weight.grad is not None and bool(weight.grad.any())
    ]
    assert not left
