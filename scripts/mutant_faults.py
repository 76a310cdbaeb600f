"""One-line faults in the numeric core, each with the tests that must catch it."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One line of the package, the wrong line in its place, and the tests that must notice.

    Attributes:
        name: What is wrong.
        file: Path inside the package.
        old: Text that is exactly once in the file.
        new: Replacement of `old`.
        tests: Test files, relative to tests/.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = (
    # Rewards and advantages
    Fault(
        "kl penalty with the wrong sign",
        "maths/advantages.py",
        "torch.where(mask, -beta * kl, 0.0)",
        "torch.where(mask, beta * kl, 0.0)",
        "maths/test_advantages.py",
    ),
    Fault(
        "kl penalty without beta",
        "maths/advantages.py",
        "torch.where(mask, -beta * kl, 0.0)",
        "torch.where(mask, -kl, 0.0)",
        "maths/test_advantages.py",
    ),
    Fault(
        "score one token before the last",
        "maths/advantages.py",
        "last = mask.sum(dim=1) - 1",
        "last = (mask.sum(dim=1) - 2).clamp(min=0)",
        "maths/test_advantages.py",
    ),
    Fault(
        "score in the last column, on the padding",
        "maths/advantages.py",
        "last = mask.sum(dim=1) - 1",
        "last = torch.full_like(mask.sum(dim=1), mask.shape[1] - 1)",
        "maths/test_advantages.py",
    ),
    Fault(
        "gae without lambda",
        "maths/advantages.py",
        "gamma * gae_lambda * running",
        "gamma * running",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "gae bootstraps from the same token",
        "maths/advantages.py",
        "torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)",
        "values",
        "maths/test_advantages.py",
    ),
    Fault(
        "gae bootstraps from padding",
        "maths/advantages.py",
        "values = torch.where(mask, values, 0.0)",
        "values = values + 0.0",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "gae lets rewards of padding in",
        "maths/advantages.py",
        "rewards = torch.where(mask, rewards, 0.0)\n",
        "rewards = rewards + 0.0\n",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "gae without discount of the next value",
        "maths/advantages.py",
        "rewards + gamma * following - values",
        "rewards + following - values",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "returns without values",
        "maths/advantages.py",
        "torch.where(mask, advantages + values, 0.0)",
        "torch.where(mask, advantages, 0.0)",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "batch mean over all tokens in place of whole responses",
        "maths/advantages.py",
        "returns[:, 0].mean()",
        "returns.mean()",
        "maths/test_advantages.py maths/test_against_reference.py",
    ),
    Fault(
        "rloo's baseline has the response itself in it",
        "maths/advantages.py",
        "(groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)",
        "groups.mean(dim=1, keepdim=True)",
        "maths/test_against_reference.py maths/test_gradients_against_reference.py",
    ),
    # KL and its controller
    Fault(
        "k1 with the wrong sign",
        "maths/kl.py",
        "    return log_probs - reference_log_probs\n",
        "    return reference_log_probs - log_probs\n",
        "maths/test_kl.py",
    ),
    Fault(
        "k3 of the other direction",
        "maths/kl.py",
        "torch.expm1(-r) + r",
        "torch.expm1(r) - r",
        "maths/test_kl.py",
    ),
    Fault(
        "k2 without the half",
        "maths/kl.py",
        ".square() / 2",
        ".square()",
        "maths/test_kl.py maths/test_against_reference.py",
    ),
    Fault(
        "controller error without clip",
        "maths/kl.py",
        "min(max(kl / target - 1.0, -0.2), 0.2)",
        "kl / target - 1.0",
        "maths/test_kl.py",
    ),
    Fault(
        "controller that ignores the number of episodes",
        "maths/kl.py",
        "error * episodes / horizon",
        "error / horizon",
        "maths/test_kl.py maths/test_against_reference.py",
    ),
    # Losses
    Fault(
        "surrogate takes the optimistic bound",
        "maths/losses.py",
        "torch.maximum(plain, bounded), bounded > plain\n",
        "torch.minimum(plain, bounded), bounded > plain\n",
        "maths/test_losses.py",
    ),
    Fault(
        "surrogate without its lower clip",
        "maths/losses.py",
        "ratio.clamp(1.0 - clip_range, 1.0 + clip_range)",
        "ratio.clamp(max=1.0 + clip_range)",
        "maths/test_losses.py maths/test_against_reference.py",
    ),
    Fault(
        "ratio without bound",
        "maths/losses.py",
        ".clamp(-_LOG_RATIO_BOUND, _LOG_RATIO_BOUND).exp()",
        ".exp()",
        "maths/test_losses.py maths/test_against_reference.py",
    ),
    Fault(
        "dual clip for good tokens too",
        "maths/losses.py",
        "(advantages < 0) & (loss > most)",
        "loss > most",
        "maths/test_losses.py maths/test_against_reference.py",
    ),
    Fault(
        "value clip off",
        "maths/losses.py",
        "(values - old_values).clamp(-clip_range, clip_range)",
        "(values - old_values)",
        "maths/test_losses.py",
    ),
    Fault(
        "value loss without the half",
        "maths/losses.py",
        "0.5 * torch.maximum(plain, bounded)",
        "torch.maximum(plain, bounded)",
        "maths/test_losses.py maths/test_against_reference.py",
    ),
    Fault(
        "margin added to the difference",
        "maths/losses.py",
        "d = chosen - rejected - margin\n",
        "d = chosen - rejected + margin\n",
        "maths/test_losses.py maths/test_against_reference.py",
    ),
    # Masks, whitening, statistics
    Fault(
        "mean over padding",
        "maths/masking.py",
        "mask.sum().clamp(min=1)",
        "mask.numel()",
        "maths/test_masking.py",
    ),
    Fault(
        "masked slots multiplied in place of replaced",
        "maths/masking.py",
        "torch.where(mask, values, 0.0).sum()",
        "(values * mask).sum()",
        "maths/test_masking.py",
    ),
    Fault(
        "whitening keeps the mean",
        "maths/masking.py",
        "scaled if shift_mean else scaled + mean",
        "scaled + mean",
        "maths/test_masking.py",
    ),
    Fault(
        "whitening removes the mean of rewards",
        "maths/masking.py",
        "scaled if shift_mean else scaled + mean",
        "scaled",
        "maths/test_masking.py",
    ),
    Fault(
        "variance without its mean",
        "maths/masking.py",
        "centred = values - masked_mean(values, mask)",
        "centred = values",
        "maths/test_masking.py",
    ),
    Fault(
        "running moments without the shift between means",
        "maths/statistics.py",
        "self.squares + squares + delta * delta * self.count * n / count",
        "self.squares + squares",
        "maths/test_statistics.py",
    ),
    # Log-probabilities and sampling
    Fault(
        "log-probabilities without the temperature",
        "maths/log_probs.py",
        "logits = logits / temperature",
        "logits = logits / 1.0",
        "maths/test_log_probs.py",
    ),
    Fault(
        "softmax over padding rows of the head",
        "maths/log_probs.py",
        "head(hidden)[:, :vocabulary].float()",
        "head(hidden).float()",
        "maths/test_vocabulary_padding.py",
    ),
    Fault(
        "log-probabilities in the dtype of the base",
        "maths/log_probs.py",
        "[:, :vocabulary].float()",
        "[:, :vocabulary]",
        "maths/test_log_probs.py",
    ),
    Fault(
        "entropy with the wrong sign",
        "maths/log_probs.py",
        "(normalizer - mean_logit).detach()",
        "(mean_logit - normalizer).detach()",
        "maths/test_log_probs.py",
    ),
    Fault(
        "cumulative probability in fp32",
        "maths/sampling.py",
        ".double().cumsum(dim=-1)",
        ".cumsum(dim=-1).double()",
        "maths/test_sampling.py",
    ),
    Fault(
        "a token of probability 0 can be sampled",
        "maths/sampling.py",
        "right=True",
        "right=False",
        "maths/test_sampling.py",
    ),
    Fault(
        "score read after the last token",
        "maths/sequences.py",
        '''        """[B], position of the last response token, where the score is read."""
        return self.prompt_lengths + self.response_lengths - 1''',
        '''        """[B]."""
        return self.prompt_lengths + self.response_lengths - 2''',
        "maths/test_sequences.py",
    ),
    # The PPO loop
    Fault(
        "same noise in every rollout",
        "ppo/rollout.py",
        "(self.settings.seed, rollout, episode)",
        "(self.settings.seed, 0, episode)",
        "ppo/test_sampling_noise.py",
    ),
    Fault(
        "no replacement of unended responses' scores",
        "ppo/rollout.py",
        "torch.where(complete, scores, settings.missing_eos_score)",
        "scores",
        "ppo/test_rollout.py",
    ),
    Fault(
        "replaced scores enter the running moments",
        "ppo/rollout.py",
        "moments.update(scores[counted])",
        "moments.update(scores)",
        "ppo/test_rollout.py",
    ),
    Fault(
        "advantages not whitened",
        "ppo/rollout.py",
        "advantages=whiten(estimate.advantages, mask)",
        "advantages=estimate.advantages",
        "ppo/test_rollout.py ppo/test_whole_step.py",
    ),
    Fault(
        "surrogate against the reference policy",
        "ppo/ppo_step.py",
        "old = rollout.log_probs[rows, :width]",
        "old = rollout.reference_log_probs[rows, :width]",
        "ppo/test_trainer.py",
    ),
    Fault(
        "importance weights of the engine over the policy",
        "maths/losses.py",
        "importance_ratio(log_probs, engine_log_probs).clamp(max=cap)",
        "importance_ratio(engine_log_probs, log_probs).clamp(max=cap)",
        "maths/test_losses.py",
    ),
    Fault(
        "importance weights without their cap",
        "maths/losses.py",
        "importance_ratio(log_probs, engine_log_probs).clamp(max=cap)",
        "importance_ratio(log_probs, engine_log_probs)",
        "maths/test_losses.py",
    ),
    Fault(
        "importance weights not in the loss",
        "ppo/ppo_step.py",
        "weighted = weighted * weights",
        "weighted = 1.0 * weighted",
        "ppo/test_engine.py",
    ),
    Fault(
        "engine mismatch with its sign",
        "ppo/engine.py",
        "(engine_log_probs - log_probs).abs() * mask",
        "(engine_log_probs - log_probs) * mask",
        "ppo/test_engine.py",
    ),
    Fault(
        "kl in the loss without beta",
        "ppo/ppo_step.py",
        "loss + rollout.beta * kl",
        "loss + kl",
        "ppo/test_options.py",
    ),
    Fault(
        "ptx term dropped",
        "ppo/ppo_step.py",
        "self.scaler.scale(self.settings.ptx_coefficient * loss).backward()",
        "self.scaler.scale(0.0 * loss).backward()",
        "ppo/test_options.py",
    ),
    Fault(
        "ptx coefficient dropped",
        "ppo/ppo_step.py",
        "self.scaler.scale(self.settings.ptx_coefficient * loss).backward()",
        "self.scaler.scale(loss).backward()",
        "ppo/test_options.py",
    ),
    Fault(
        "gradient clip off",
        "ppo/ppo_step.py",
        "clip_grad_norm_(self.weights[role], self.settings.max_grad_norm)",
        "clip_grad_norm_(self.weights[role], 1e30)",
        "ppo/test_trainer.py",
    ),
    Fault(
        "one learning rate for both roles",
        "ppo/ppo_step.py",
        '"critic": settings.value_learning_rate',
        '"critic": settings.learning_rate',
        "ppo/test_whole_step.py",
    ),
    Fault(
        "average with the complement of its decay",
        "ppo/hooks.py",
        "mean.lerp_(weight.detach(), 1.0 - self.decay)",
        "mean.lerp_(weight.detach(), self.decay)",
        "ppo/test_options.py",
    ),
    Fault(
        "minibatches in a fixed order",
        "ppo/trainer.py",
        "torch.randperm(self.settings.rollout_batch_size)",
        "torch.arange(self.settings.rollout_batch_size)",
        "ppo/test_whole_step.py",
    ),
    Fault(
        "kl penalty in the reward and in the loss",
        "ppo/trainer.py",
        'progress.beta if settings.kl_penalty == "reward" else 0.0',
        "progress.beta",
        "ppo/test_options.py",
    ),
    Fault(
        "beta adapted by the kl per token",
        "ppo/trainer.py",
        'progress.beta, metrics["kl"], settings.kl_target',
        'progress.beta, metrics["kl"] / metrics["response_length"], settings.kl_target',
        "ppo/test_whole_step.py",
    ),
    # Roles and heads
    Fault(
        "value read one token late",
        "models/roles.py",
        "hidden[rows, batch.response_positions[mask] - 1]",
        "hidden[rows, batch.response_positions[mask]]",
        "models/test_roles.py",
    ),
    Fault(
        "log-probability of the token before",
        "models/roles.py",
        "hidden[rows, positions - 1]",
        "hidden[rows, positions]",
        "models/test_roles.py",
    ),
    Fault(
        "score head in bfloat16 under autocast",
        "models/heads.py",
        "torch.autocast(states.device.type, enabled=False)",
        "torch.autocast(states.device.type, torch.bfloat16)",
        "models/test_scorer.py",
    ),
    Fault(
        "whole weights trained in the recipe's dtype",
        "models/role_models.py",
        "str(folders.policy or folders.sft), torch.float32)",
        "str(folders.policy or folders.sft))",
        "models/test_roles.py",
    ),
    Fault(
        "normalisation multiplies by the deviation",
        "models/heads.py",
        "return (scores - self.mean) / self.deviation",
        "return (scores - self.mean) * self.deviation",
        "models/test_heads.py",
    ),
    Fault(
        "value head without the mean of scores",
        "models/heads.py",
        "(bias - normalization.mean) / normalization.deviation",
        "bias / normalization.deviation",
        "models/test_heads.py",
    ),
    Fault(
        "score head drawn at twice its deviation",
        "models/heads.py",
        "weights / math.sqrt(head.in_features + 1)",
        "2 * weights / math.sqrt(head.in_features + 1)",
        "models/test_heads.py",
    ),
    Fault(
        "policy active where the reference is asked for",
        "models/role_models.py",
        "self.model.set_adapter(role, inference_mode=not training)",
        'self.model.set_adapter("policy", inference_mode=not training)',
        "models/test_roles.py",
    ),
)
