"""A critic that is a value head on the policy: one pass, one optimiser, both losses.

The reference is transformers and peft alone, in double precision.
"""

import pytest
import torch
from safetensors.torch import load_file

from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.heads import VALUE_HEAD_FILE
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.run.directory import CRITIC_FOLDER
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.world.model import embedded_path
from tests.loaded_roles import loaded, loaded_with_head
from tests.ppo.toy import Cut, Dying, HeadBandit, bandit_settings
from tests.ppo.whole import EPISODES, close, flat, tokens_of, trained
from tests.present import present

COEFFICIENT = 0.3
BATCH = Sequences.from_lists([[300, 301, 302], [310]], [[320, 321], [330, 331, 332]], 0)


def in_double_precision(run):
    """The SFT checkpoint by transformers and peft, with the weights that PPO trains."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if run.recipe.lora is None:
        model = AutoModelForCausalLM.from_pretrained(run.stage("sft"), dtype=torch.float64)
        return model, list(model.parameters())
    base = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float64)
    model = PeftModel.from_pretrained(base, run.stage("sft"), is_trainable=True).double()
    return model, [weight for name, weight in model.named_parameters() if "lora_" in name]


def reference_gradient(run, roles, rollout):
    """The gradient of policy loss + coefficient * value loss, a token at a time; at its first step."""
    model, weights = in_double_precision(run)
    head = [weight.detach().double() for weight in roles.models.value_head.parameters()]
    head = [weight.requires_grad_() for weight in head]
    losses = []
    for row in range(EPISODES):
        ids, start, end = tokens_of(rollout, row)
        found = model(ids, output_hidden_states=True)
        table = (found.logits[0, start - 1 : -1] / roles.temperature).log_softmax(-1)
        for t, state in enumerate(found.hidden_states[-1][0, start - 1 : end - 1]):
            log_prob = table[t, ids[0, start + t]]
            ratio = (log_prob - log_prob.detach()).exp()
            error = state @ head[0][0] + head[1][0] - rollout.returns[row, t].double()
            losses.append(-rollout.advantages[row, t] * ratio + COEFFICIENT * 0.5 * error**2)
    torch.stack(losses).mean().backward()
    return {"policy": flat(weights).float(), "critic": flat(head).float()}


@pytest.mark.parametrize(
    ("kind", "gradient_checkpointing"),
    [("tiny_run", False), ("tiny_run", True), ("tiny_full_run", False)],
)
def test_one_step_has_the_gradient_of_both_losses(request, kind, gradient_checkpointing):
    run = request.getfixturevalue(kind)
    roles = loaded_with_head(run, gradient_checkpointing=gradient_checkpointing)
    (rollout,), steps, (metrics,) = trained(
        roles, critic="head", vf_coef=COEFFICIENT, forward_batch_size=3, value_learning_rate=2e-30
    )
    assert {role: len(caught) for role, caught in steps.items()} == {"policy": 1, "critic": 1}
    expected = reference_gradient(run, roles, rollout)
    for role, gradient in expected.items():
        close(steps[role][0].gradient, gradient)
    whole = torch.cat([caught[0].gradient for caught in steps.values()])
    assert metrics["policy_grad_norm"] == pytest.approx(float(whole.double().norm()), rel=1e-4)
    assert "value_grad_norm" not in metrics
    assert [caught[0].numbers["lr"] for caught in steps.values()] == [1e-30, 2e-30]


def test_without_the_value_loss_the_policy_has_another_gradient(tiny_run):
    """Else the comparison with the reference says nothing of the value loss."""
    roles = loaded_with_head(tiny_run)
    some, none = (
        trained(roles, critic="head", vf_coef=coefficient)[1]["policy"][0].gradient
        for coefficient in (COEFFICIENT, 1e-9)
    )
    assert float((some - none).norm()) > 0.05 * float(none.norm())


def test_policy_and_head_are_clipped_together(tiny_run):
    roles = loaded_with_head(tiny_run)
    free, bounded = (
        {role: caught[0].gradient for role, caught in trained(roles, **changes)[1].items()}
        for changes in ({"critic": "head"}, {"critic": "head", "max_grad_norm": 1e-3})
    )
    both = torch.cat(list(bounded.values()))
    assert float(both.double().norm()) == pytest.approx(1e-3, rel=1e-3)
    scale = float(torch.cat(list(free.values())).double().norm()) / 1e-3
    for role, gradient in free.items():
        close(scale * bounded[role], gradient)


@pytest.mark.parametrize("kind", ["tiny_run", "tiny_4bit_run", "tiny_full_run"])
def test_one_pass_gives_to_the_bit_what_two_give(request, kind):
    roles = loaded_with_head(request.getfixturevalue(kind))
    log_probs, values = roles.log_probs_and_values(BATCH)
    for found, expected in zip(log_probs, roles.log_probs("policy", BATCH), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(values, roles.values(BATCH))
    training, trained_values = roles.log_probs_and_values(BATCH, training=True)
    torch.testing.assert_close(training.log_probs, log_probs.log_probs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(trained_values, values, atol=1e-6, rtol=1e-6)
    hidden = roles.models.activate("policy", training=False)(BATCH.ids)[0].detach()
    expected = roles.models.value_head(hidden[1, 0:3])[:, 0]
    torch.testing.assert_close(values[1, :3], expected.detach(), atol=1e-5, rtol=1e-5)
    names = roles.trainable("critic")
    assert sorted(names) == ["value_head.bias", "value_head.weight"]


def test_a_critic_of_its_own_has_no_joint_pass(tiny_run):
    with pytest.raises(ValueError, match="not on the policy"):
        loaded(tiny_run).log_probs_and_values(BATCH)


def test_in_its_warm_up_the_head_alone_learns(tiny_run):
    rollouts, steps, metrics = trained(
        loaded_with_head(tiny_run),
        critic="head",
        episodes=3 * EPISODES,
        learning_rate=1e-3,
        value_learning_rate=1e-3,
        critic_warmup_rollouts=2,
    )
    assert [len(caught) for caught in steps.values()] == [1, 3]
    assert [row["kl"] for row in metrics] == [0.0, 0.0, 0.0], "the policy has not moved before"
    assert "value_grad_norm" in metrics[1]
    assert "policy_grad_norm" not in metrics[1]
    assert not torch.equal(present(rollouts[0].values)[:, 0], present(rollouts[2].values)[:, 0])


@pytest.mark.parametrize("after", [1, 3])
def test_cut_and_resumed_equals_uninterrupted(tmp_path, after):
    """In the warm-up the optimiser has moments of the head alone."""

    def run(folder, monitor):
        roles = HeadBandit()
        settings = bandit_settings(
            episodes=256 * 5,
            minibatch_size=64,
            save_rollouts=1,
            critic="head",
            critic_warmup_rollouts=2,
        )
        PPOTrainer(roles, [[1]], settings, monitor, checkpoints=folder).train()
        return torch.cat([roles.logits, roles.value]).tolist()

    with pytest.raises(Cut):
        run(tmp_path / "cut", Dying(after))
    assert run(tmp_path / "cut", NullMonitor()) == run(tmp_path / "whole", NullMonitor())


def test_the_stage_saves_the_head_alone_and_resumes_to_the_bit(tiny_run, tmp_path):
    section = tiny_run.recipe.ppo.model_copy(
        update={"critic": "head", "save_rollouts": 1, "eval_rollouts": None}
    )
    recipe = tiny_run.recipe.model_copy(update={"ppo": section})
    inputs = {name: tiny_run.stage(name) for name in ("sft", "rm")}

    def run(folder, monitor):
        folder.mkdir(exist_ok=True)
        result = ppo.run(recipe, inputs, folder, monitor).metrics
        assert [path.name for path in (folder / CRITIC_FOLDER).iterdir()] == [VALUE_HEAD_FILE]
        head = load_file(folder / CRITIC_FOLDER / VALUE_HEAD_FILE)
        policy = load_file(folder / "adapter_model.safetensors")
        return result, {name: value.tolist() for name, value in (head | policy).items()}

    result, whole = run(tmp_path / "whole", NullMonitor())
    assert "policy can learn" in result["gate"]
    assert "critic can learn" in result["gate"]
    weight = torch.tensor(whole["v_head.summary.weight"])
    assert weight.shape[0] == 1
    assert bool((weight != 0).all())
    with pytest.raises(Cut):
        run(tmp_path / "cut", Dying(1))
    assert run(tmp_path / "cut", NullMonitor())[1] == whole
