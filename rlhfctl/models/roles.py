"""The four roles of PPO: what each says about a batch of episodes. Nothing else runs the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError, EnvironmentFault
from rlhfctl.maths.log_probs import TokenLogProbs, token_log_probs
from rlhfctl.maths.sampling import uniform_numbers
from rlhfctl.models import generation
from rlhfctl.models.adapters import is_adapter
from rlhfctl.models.base import device
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.role_models import (
    AdapterRoleModels,
    CriticInit,
    Role,
    RoleFolders,
    RoleModels,
    SeparateRoleModels,
    reward_role,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.maths.sampling import Seed
    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.recipe.schema import Recipe


class Roles:
    """Policy, reference, reward model and critic over one base.

    Attributes:
        models: Whose weights they are.
        normalizations: Of each reward model: puts its raw scores on the scale of rewards.
        vocabulary: Tokens that the tokenizer knows. A head's rows beyond them are padding, which
            is neither sampled nor part of any softmax.
    """

    def __init__(
        self,
        role_models: RoleModels,
        normalizations: Sequence[ScoreNormalization],
        *,
        pad_token_id: int,
        vocabulary: int,
        stop_token_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Take loaded role_models and the numbers of sampling."""
        self.models = role_models
        self.normalizations = tuple(normalizations)
        self.pad_token_id = pad_token_id
        head = role_models.lm_head("policy")
        weight = head.get_parameter("weight")
        self.vocabulary = min(vocabulary, int(getattr(head, "out_features", weight.shape[0])))
        self.stop_token_ids = tuple(sorted(stop_token_ids))
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.gradient_checkpointing = gradient_checkpointing
        self.device = device()
        if gradient_checkpointing:
            role_models.checkpoint_gradients()
        self._check_head()

    def _check_head(self) -> None:
        """Make sure that decoder and LM head alone give the model's logits.

        Some architectures scale or cap logits between the two; log-probabilities that skipped
        this would be of another distribution than the one sampled from.
        """
        ids = torch.arange(1, 5, device=self.device)[None, :]
        with torch.no_grad():
            decoder = self.models.activate("policy", training=False)
            direct = self.models.lm_head("policy")(decoder(ids, use_cache=False)[0])
            whole = self.models.language_model("policy")(ids, use_cache=False).logits
        if not torch.allclose(direct.float(), whole.float(), atol=1e-3, rtol=1e-3):
            raise EnvironmentFault(
                "this architecture changes logits after its LM head, which PPO here does not follow",
                "model.name_or_path",
                "Use another base model.",
            )

    def _hidden(self, role: Role, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return the states [B, T, H] of a role; right padding needs no attention mask."""
        decoder = self.models.activate(role, training=training)
        decoder.train(training and self.gradient_checkpointing)
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
            training: Whether gradients are wanted.
            temperature: Divides the logits; None: that of sampling.
            entropy: Whether to work it out; None: of the policy's passes without gradients.

        Returns:
            Two [B, R] in fp32, 0 where masked. Entropy is 0 where it was not asked for.
        """
        if entropy is None:
            entropy = role == "policy" and not training
        with torch.set_grad_enabled(training):
            hidden = self._hidden(role, batch, training=training)
            mask = batch.mask
            rows = torch.arange(len(batch), device=hidden.device)[:, None].expand_as(mask)[mask]
            at = batch.response_positions[mask]
            flat = token_log_probs(
                self.models.lm_head(role),
                hidden[rows, at - 1],
                batch.ids[rows, at],
                vocabulary=self.vocabulary,
                temperature=temperature or self.temperature,
                with_entropy=entropy,
            )
            return TokenLogProbs(*(_spread(part, mask) for part in flat))

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t), read at the token before each response token: [B, R], 0 where masked."""
        with torch.set_grad_enabled(training):
            hidden = self._hidden("critic", batch, training=training)
            mask = batch.mask
            rows = torch.arange(len(batch), device=hidden.device)[:, None].expand_as(mask)[mask]
            states = hidden[rows, batch.response_positions[mask] - 1]
            return _spread(self.models.value_head(states.float()).squeeze(-1), mask)

    @torch.no_grad()
    def raw_scores(self, batch: Sequences, number: int = 0) -> Tensor:
        """Return a reward model's scores [B], read at the last response token."""
        role = reward_role(number)
        hidden = self._hidden(role, batch)
        rows = torch.arange(len(batch), device=hidden.device)
        states = hidden[rows, batch.last_positions]
        scores: Tensor = self.models.score_heads[role](states.float()).squeeze(-1)
        return scores

    def scores(self, batch: Sequences, number: int = 0) -> Tensor:
        """Return scores [B] on the scale of rewards: mean 0, deviation 1 over SFT samples.

        Args:
            batch: B episodes.
            number: Which reward model, where there are several.
        """
        return self.normalizations[number].apply(self.raw_scores(batch, number))

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Seed], role: Role = "policy"
    ) -> list[list[int]]:
        """Sample a response to each prompt; each depends on its own seed and prompt alone.

        Args:
            prompts: Token ids, one list a prompt.
            seeds: One a prompt.
            role: policy, or reference for the SFT policy's responses.

        Returns:
            Token ids of each response, its stop token included where it ended by one.
        """
        self.models.activate(role, training=False).eval()
        return generation.generate(
            self.models.language_model(role),
            prompts,
            uniform_numbers(seeds, self.max_new_tokens).to(self.device),
            temperature=self.temperature,
            vocabulary=self.vocabulary,
            stop_token_ids=self.stop_token_ids,
            pad_token_id=self.pad_token_id,
            synced=self.models.sharded,
        )

    def ended(self, response: Sequence[int]) -> bool:
        """Say whether a response ended by a stop token, rather than at the length limit."""
        return response[-1] in self.stop_token_ids

    def trainable(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return what a role's optimiser moves, by name."""
        return self.models.parameters(role)


def _spread(flat: Tensor, mask: Tensor) -> Tensor:
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
    """Load what PPO and the evaluation need, with one base where the checkpoints are adapters.

    Args:
        recipe: Model and sampling.
        tokenizer: For its pad token and vocabulary.
        stop_token_ids: What ends a response.
        sft: The SFT checkpoint.
        rms: The reward models.
        policy: A PPO checkpoint, where the policy shall not start as SFT.
        critic: What the critic starts as; None: there is none.
        shard: Spread the base over the processes.
        gradient_checkpointing: Recompute activations in training passes, to save memory.

    Raises:
        CheckpointError: Checkpoints of different kinds, or damaged ones.
    """
    normalizations = [ScoreNormalization.load(rm) for rm in rms]
    kinds = {folder: is_adapter(folder) for folder in (sft, *rms, policy) if folder is not None}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(
            f"{folder} ({'adapter' if adapter else 'whole model'})"
            for folder, adapter in kinds.items()
        )
        raise CheckpointError(
            f"adapters and whole models cannot serve together: {listed}",
            hint="Train the stages with the same lora setting.",
        )
    folders = RoleFolders(sft, tuple(rms), policy, critic)
    role_models: RoleModels
    if kinds[sft]:
        role_models = AdapterRoleModels(recipe.model, folders)
    else:
        role_models = SeparateRoleModels(recipe.model, folders, tokenizer.pad_token_id)
    roles = Roles(
        role_models,
        normalizations,
        pad_token_id=tokenizer.pad_token_id,
        vocabulary=len(tokenizer),
        stop_token_ids=stop_token_ids,
        max_new_tokens=recipe.generation.max_new_tokens,
        temperature=recipe.generation.temperature,
        gradient_checkpointing=gradient_checkpointing,
    )
    # After the head was checked: by then all processes may compute only together.
    if shard and isinstance(role_models, AdapterRoleModels):
        role_models.shard()
    return roles
