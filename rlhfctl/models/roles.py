"""Log-probabilities, values, scores and responses of the four roles of PPO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.maths.log_probs import TokenLogProbs, token_log_probs
from rlhfctl.maths.sampling import uniform_numbers
from rlhfctl.models import generation
from rlhfctl.models.adapters import is_adapter
from rlhfctl.models.compiler import require_compiler
from rlhfctl.models.device import device, effective_dtype
from rlhfctl.models.heads import ScoreNormalization, linear_float32
from rlhfctl.models.lm_head import check_language_model
from rlhfctl.models.role_models import (
    AdapterRoleModels,
    CriticInit,
    Role,
    RoleFolders,
    RoleModels,
    SeparateRoleModels,
    reward_role,
)
from rlhfctl.recipe.generation import CACHE_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.maths.sampling import Seed
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.recipe.schema import Recipe


@dataclass(frozen=True, eq=False)
class Roles:
    """Policy, reference, reward models and critic over one base, with fixed sampling settings.

    Attributes:
        models: Weights of every role.
        normalizations: Score normalization per reward model.
        pad_token_id: Right padding of sequences; affects no result.
        vocabulary: The tokenizer's largest id + 1. An LM head's rows beyond it are padding, neither
            sampled nor part of any softmax.
        stop_token_ids: Tokens that end a response, sorted.
        max_new_tokens: Longest response, in tokens.
        temperature: Divisor of the logits in sampling and in log-probabilities.
        gradient_checkpointing: Whether training passes recompute activations.
        computes_in_float16: Whether passes compute in float16.
        static_cache: Whether sampling uses a cache of fixed size and a compiled pass.
    """

    models: RoleModels
    normalizations: tuple[ScoreNormalization, ...]
    pad_token_id: int
    vocabulary: int
    stop_token_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float
    gradient_checkpointing: bool = False
    computes_in_float16: bool = False
    static_cache: bool = False

    @property
    def device(self) -> torch.device:
        """Device of every role's weights."""
        return device()

    def with_sampling(self, *, temperature: float, max_new_tokens: int) -> Roles:
        """Return roles over the same models that sample with other settings.

        Args:
            temperature: Divisor of the logits in sampling and in log-probabilities.
            max_new_tokens: Longest response, in tokens.
        """
        return replace(self, temperature=temperature, max_new_tokens=max_new_tokens)

    def _hidden(self, role: Role, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return the states [B, T, H] of a role; right padding needs no attention mask."""
        decoder = self.models.activate(role, training=training)
        # Only checkpointing needs the training mode; setting it visits every module.
        train_mode = training and self.gradient_checkpointing
        if decoder.training != train_mode:
            decoder.train(train_mode)
        with self.models.autocast():
            states: Tensor = decoder(batch.ids, use_cache=False)[0]
        return states

    def log_probs(
        self,
        role: Role,
        batch: Sequences,
        *,
        training: bool = False,
        temperature: float | None = None,
        entropy: bool | None = None,
    ) -> TokenLogProbs:
        """Return log-probability and entropy of each response token.

        Args:
            role: policy, reference, or base.
            batch: B episodes.
            training: Whether gradients are computed.
            temperature: Divisor of the logits; None: the sampling temperature.
            entropy: Whether to compute the entropy; None: only for the policy, without gradients.

        Returns:
            Two [B, R] in fp32, 0 where masked. Entropy is 0 where it is not computed.
        """
        if entropy is None:
            entropy = role == "policy" and not training
        with torch.set_grad_enabled(training):
            states = self._response_states(role, batch, training=training)
            return self._log_probs(
                role, batch, states, temperature=temperature or self.temperature, entropy=entropy
            )

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t), read at the token before each response token: [B, R], 0 where masked.

        Of a head on the policy, only the head gets gradients: the policy learns by
        `log_probs_and_values`.
        """
        role = self.models.critic_role
        through_body = training and role == "critic"
        with torch.set_grad_enabled(through_body):
            states = self._response_states(role, batch, training=through_body)
        with torch.set_grad_enabled(training):
            return self._values(batch, states)

    def log_probs_and_values(
        self, batch: Sequences, *, training: bool = False
    ) -> tuple[TokenLogProbs, Tensor]:
        """Return the policy's `log_probs` and `values` of one pass, for a head on the policy.

        Both get gradients with `training`.

        Raises:
            ValueError: The critic is a network of its own.
        """
        if self.models.critic_role != "policy":
            raise ValueError("the value head is not on the policy")
        with torch.set_grad_enabled(training):
            states = self._response_states("policy", batch, training=training)
            log_probs = self._log_probs(
                "policy", batch, states, temperature=self.temperature, entropy=not training
            )
            return log_probs, self._values(batch, states)

    def _response_states(self, role: Role, batch: Sequences, *, training: bool) -> Tensor:
        """Return the states [N, H] that predict the N response tokens."""
        hidden = self._hidden(role, batch, training=training)
        rows, positions = _response_tokens(batch)
        return hidden[rows, positions - 1]

    def _log_probs(
        self, role: Role, batch: Sequences, states: Tensor, *, temperature: float, entropy: bool
    ) -> TokenLogProbs:
        rows, positions = _response_tokens(batch)
        with self.models.autocast():
            flat = token_log_probs(
                self.models.lm_head(role),
                states,
                batch.ids[rows, positions],
                vocabulary=self.vocabulary,
                temperature=temperature,
                with_entropy=entropy,
            )
        return TokenLogProbs(*(_scatter(part, batch.mask) for part in flat))

    def _values(self, batch: Sequences, states: Tensor) -> Tensor:
        return _scatter(linear_float32(self.models.value_head, states).squeeze(-1), batch.mask)

    @torch.no_grad()
    def score_states(self, batch: Sequences, number: int = 0) -> Tensor:
        """Return the states [B, H] that a reward model's head reads, at the last response token."""
        hidden = self._hidden(reward_role(number), batch)
        rows = torch.arange(len(batch), device=hidden.device)
        return hidden[rows, batch.last_positions]

    @torch.no_grad()
    def raw_scores(self, batch: Sequences, number: int = 0) -> Tensor:
        """Return a reward model's scores [B], read at the last response token."""
        states = self.score_states(batch, number)
        return linear_float32(self.models.score_heads[reward_role(number)], states).squeeze(-1)

    def scores(self, batch: Sequences, number: int = 0) -> Tensor:
        """Return scores [B] on the scale of rewards: mean 0, deviation 1 over SFT samples.

        Args:
            batch: B episodes.
            number: Index of the reward model.
        """
        return self.normalizations[number].apply(self.raw_scores(batch, number))

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed], role: Role = "policy"
    ) -> list[list[int]]:
        """Sample one response per prompt; each depends only on its own seed and prompt.

        Args:
            prompts: Token ids, one list per prompt.
            seeds: One per prompt.
            role: policy, or reference for the SFT policy's responses.

        Returns:
            Token ids per response, including the stop token, if any.
        """
        self.models.activate(role, training=False).eval()
        with self.models.autocast():
            return generation.generate(
                self.models.language_model(role),
                prompts,
                uniform_numbers(seeds, self.max_new_tokens).to(self.device),
                temperature=self.temperature,
                vocabulary=self.vocabulary,
                stop_token_ids=self.stop_token_ids,
                pad_token_id=self.pad_token_id,
                synced=self.models.sharded,
                static_cache=self.static_cache,
            )

    def ended(self, response: Sequence[int]) -> bool:
        """Return whether a response ends with a stop token rather than at the length limit."""
        return response[-1] in self.stop_token_ids

    def trainable(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return a role's trainable parameters by name."""
        return self.models.parameters(role)


def _vocabulary(tokenizer: Any, logits: int) -> int:
    """Return the number of ids that the softmax covers: those of the tokenizer and of the LM head.

    Ids may have holes, so the largest one counts, not the number of tokens.
    """
    largest: int = max(tokenizer.get_vocab().values())
    return min(largest + 1, logits)


def _response_tokens(batch: Sequences) -> tuple[Tensor, Tensor]:
    """Return row and position [N] of each response token."""
    mask = batch.mask
    rows = torch.arange(len(batch), device=mask.device)[:, None].expand_as(mask)[mask]
    return rows, batch.response_positions[mask]


def _scatter(flat: Tensor, mask: Tensor) -> Tensor:
    """Return [B, R] with `flat` [N] where the mask is True and 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def load_roles(
    recipe: Recipe,
    tokenizer: Any,
    stop_token_ids: Sequence[int],
    sft: Path,
    rms: Sequence[Path] = (),
    policy: Path | None = None,
    critic: CriticInit | None = None,
    *,
    shard: bool = False,
    gradient_checkpointing: bool = False,
) -> Roles:
    """Load the roles of PPO and the evaluation, over one base where the checkpoints are adapters.

    Args:
        recipe: Model and sampling settings.
        tokenizer: Source of the pad token and the vocabulary size.
        stop_token_ids: Tokens that end a response.
        sft: SFT checkpoint.
        rms: Reward model checkpoints.
        policy: PPO checkpoint; None: the policy starts as a copy of SFT.
        critic: Initialisation of the critic; None: no critic.
        shard: Shard the base over the processes.
        gradient_checkpointing: Recompute activations in training passes, to save memory.

    Raises:
        CheckpointError: Checkpoints of different kinds, or damaged ones.
        EnvironmentFault: The architecture's logits are not those of its decoder's states, or not
            causal; or there is no compiler for a static cache.
    """
    static_cache = recipe.generation.cache_implementation == "static"
    if static_cache:
        require_compiler(CACHE_KEY)
    normalizations = [ScoreNormalization.load(rm) for rm in rms]
    kinds = {folder: is_adapter(folder) for folder in (sft, *rms, policy) if folder is not None}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(
            f"{folder} ({'adapter' if adapter else 'whole model'})"
            for folder, adapter in kinds.items()
        )
        raise CheckpointError(
            f"adapters and whole models cannot be combined: {listed}",
            hint="Train the stages with the same lora setting.",
        )
    folders = RoleFolders(sft, tuple(rms), policy, critic)
    role_models: RoleModels
    if kinds[sft]:
        role_models = AdapterRoleModels(recipe.model, folders)
    else:
        role_models = SeparateRoleModels(recipe.model, folders, tokenizer.pad_token_id)
    if gradient_checkpointing:
        role_models.checkpoint_gradients()
    decoder = role_models.activate("policy", training=False)
    with role_models.autocast():
        logits = check_language_model(role_models.language_model("policy"), decoder, device())
    # Only after the check: with a sharded base no process can compute alone.
    if shard and isinstance(role_models, AdapterRoleModels):
        role_models.shard()
    return Roles(
        role_models,
        tuple(normalizations),
        pad_token_id=tokenizer.pad_token_id,
        vocabulary=_vocabulary(tokenizer, logits),
        stop_token_ids=tuple(sorted(stop_token_ids)),
        max_new_tokens=recipe.generation.max_new_tokens,
        temperature=recipe.generation.temperature,
        gradient_checkpointing=gradient_checkpointing,
        computes_in_float16=effective_dtype(recipe.model) is torch.float16,
        static_cache=static_cache,
    )
