"""The algorithm's options on real roles, against the slow reference and against loops."""

import math

import pytest
import torch

from tests.loaded_roles import loaded
from tests.ppo.whole import BETA, EPISODES, close, episode_gradients, flat, spoken, trained
from tests.present import present
from tests.reference import ppo_reference as reference

DEMONSTRATIONS = [([300, 301], [310, 311, 312, 1]), ([302], [313, 1]), ([303, 304, 305], [314])]


@pytest.fixture
def roles(tiny_run):
    return loaded(tiny_run)


def as_before(roles, step, role="policy"):
    """Put back the weights of which a step's gradient was taken."""
    with torch.no_grad():
        for weight, before in zip(roles.trainable(role).values(), step.weights, strict=True):
            weight.copy_(before)


DUAL = 1.0005
LOSSES = {"k2": lambda r: r**2 / 2, "k3": lambda r: (-r).exp() - 1 + r}


@pytest.mark.parametrize("estimator", LOSSES)
def test_kl_in_the_loss_and_dual_clip(roles, estimator):
    """The second step, where the policy has left its reference; no penalty is in the reward."""
    (rollout, later), steps, (metrics, _) = trained(
        roles,
        episodes=2 * EPISODES,
        epochs=2,
        learning_rate=1e-2,
        kl_penalty="loss",
        kl_estimator=estimator,
        dual_clip=DUAL,
        kl_stop=None,
    )
    assert float(later.kl.abs().max()) > 0.1
    assert later.rewards.sum(dim=1).tolist() == pytest.approx(later.scores.tolist(), abs=1e-6)
    as_before(roles, steps["policy"][1])
    tokens, penalty, bound = 0, 0.0, 0
    theirs = {"k2": reference.k2, "k3": reference.k3}[estimator]
    for row in range(EPISODES):
        for t, new in enumerate(spoken(roles, rollout, row).tolist()):
            gain = float(rollout.advantages[row, t])
            ratio = math.exp(new - float(rollout.log_probs[row, t]))
            bound += gain < 0 and ratio > DUAL
            penalty += BETA * theirs(new, float(rollout.reference_log_probs[row, t]))
            tokens += 1
    assert bound > 0, "the dual clip must bind somewhere"
    assert metrics["kl_loss"] == pytest.approx(penalty / tokens / 2, rel=1e-3)
    expected = episode_gradients(roles, rollout, dual=DUAL, penalty=LOSSES[estimator])
    close(steps["policy"][1].gradient, expected["policy"].sum(dim=0) / tokens)


def test_demonstrations_add_the_gradient_of_the_sft_loss_at_temperature_1(roles):
    roles = roles.with_sampling(temperature=0.7, max_new_tokens=roles.max_new_tokens)
    plain = trained(roles)[1]["policy"]
    _, steps, (metrics,) = trained(
        roles, demonstrations=DEMONSTRATIONS, ptx_coefficient=2.5, ptx_batch_size=3
    )
    weights = list(roles.trainable("policy").values())
    for weight in weights:
        weight.grad = None
    roles.models.activate("policy", training=True)
    model, losses = roles.models.language_model("policy"), []
    for prompt, response in DEMONSTRATIONS:
        table = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        losses += [-table[len(prompt) + t - 1, token] for t, token in enumerate(response)]
    loss = sum(losses) / len(losses)
    loss.backward()
    close(steps["policy"][0].gradient - plain[0].gradient, 2.5 * flat(weights))
    assert metrics["ptx_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"gamma": 0.9}, {"responses_per_prompt": 4}, {"responses_per_prompt": 2}],
    ids=["batch_mean", "rloo", "grpo"],
)
def test_without_a_critic_advantages_are_those_of_the_reference(roles, changes, request):
    estimator = request.node.callspec.id
    before = [weight.clone() for weight in roles.trainable("critic").values()]
    (rollout,), steps, (metrics,) = trained(
        roles, advantage_estimator=estimator, learning_rate=1e-3, **changes
    )
    rows = [
        rollout.rewards[row, :length].tolist()
        for row, length in enumerate(rollout.sequences.response_lengths.tolist())
    ]
    if estimator == "batch_mean":
        advantages, returns = reference.batch_mean(rows, 0.9)
    else:
        formula = {"rloo": reference.rloo, "grpo": reference.grpo}[estimator]
        advantages = formula(rows, changes["responses_per_prompt"])
        returns = [[sum(row)] * len(row) for row in rows]
    for row, white in enumerate(reference.whiten(advantages)):
        found = rollout.advantages[row, : len(white)].tolist()
        assert found == pytest.approx(white, abs=5e-5)
        assert rollout.returns[row, : len(white)].tolist() == pytest.approx(returns[row], abs=2e-5)
    assert rollout.values is None
    assert not steps["critic"]
    assert not {name for name in metrics if "value" in name or "variance" in name}
    after = roles.trainable("critic").values()
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_in_its_warm_up_the_critic_alone_learns(roles):
    rollouts, steps, metrics = trained(
        roles,
        episodes=3 * EPISODES,
        learning_rate=1e-3,
        value_learning_rate=1e-3,
        critic_warmup_rollouts=2,
    )
    assert [len(caught) for caught in steps.values()] == [1, 3]
    assert [row["kl"] for row in metrics] == [0.0, 0.0, 0.0], "the policy has not moved before"
    assert "policy_loss" not in metrics[1]
    assert "policy_loss" in metrics[2]
    assert not torch.equal(present(rollouts[0].values)[:, 0], present(rollouts[2].values)[:, 0])


def test_responses_to_one_prompt_stand_together_and_differ(roles):
    (rollout,), _, _ = trained(roles, responses_per_prompt=4)
    prompts = [
        tuple(ids[:length].tolist())
        for ids, length in zip(
            rollout.sequences.ids, rollout.sequences.prompt_lengths.tolist(), strict=True
        )
    ]
    assert prompts[0:4] == [prompts[0]] * 4
    assert prompts[4:8] == [prompts[4]] * 4
    assert prompts[0] != prompts[4]
    assert len({tuple(response) for response in rollout.sequences.response_lists()[:4]}) > 1


def test_responses_that_are_too_short_get_the_score_of_unended_ones(roles):
    (rollout,), _, _ = trained(roles, min_response_length=6, missing_eos_score=-2.0)
    lengths = rollout.sequences.response_lengths
    proper = rollout.ended & (lengths >= 6)
    assert 0 < int(proper.sum()) < int(rollout.ended.sum())
    assert torch.equal(rollout.scores[proper], rollout.model_scores[proper])
    assert rollout.scores[~proper].tolist() == [-2.0] * int((~proper).sum())


def test_the_running_mean_of_policies_is_what_is_left_at_the_end(roles):
    start = [weight.clone() for weight in roles.trainable("policy").values()]
    _, steps, _ = trained(roles, episodes=4 * EPISODES, learning_rate=1e-3, ema_decay=0.6)
    # A step's weights are those before it, which are those that the rollout before left.
    left = [step.weights for step in steps["policy"][1:]]
    final = list(roles.trainable("policy").values())
    mean = [weight.double() for weight in start]
    for weights in left:
        mean = [0.6 * m + 0.4 * w.double() for m, w in zip(mean, weights, strict=True)]
    moved = [(f.double() - 0.6 * m) / 0.4 for f, m in zip(final, mean, strict=True)]
    last = left[-1]
    for one, two in zip(moved, last, strict=True):
        assert float((one - two).abs().max()) < 1.1e-3, "one more step of Adam at most"
    assert any(not torch.equal(f, w) for f, w in zip(final, last, strict=True))
