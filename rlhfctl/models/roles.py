"""The four roles of PPO: what each says about a batch of episodes. Nothing else runs the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rlhfctl.errors import CheckpointError, EnvironmentFault
from rlhfctl.maths.log_probs import TokenLogProbs, token_log_probs
from rlhfctl.models.adapters import is_adapter
from rlhfctl.models.base import device
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.networks import (
    AdapterNetworks,
    ModelNetworks,
    Networks,
    Role,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from rlhfctl.maths.sequences import Sequences
    from rlhfctl.recipe.schema import Recipe


class Roles:
    """Policy, reference, reward model and critic over one base.

    Attributes:
        networks: Whose weights they are.
        normalization: Puts raw scores on the scale of rewards; None without a reward model.
    """

    def __init__(
        self,
        networks: Networks,
        normalization: ScoreNormalization | None,
        *,
        pad_token_id: int,
        stop_token_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Take loaded networks and the numbers of sampling."""
        self.networks = networks
        self.normalization = normalization
        self.pad_token_id = pad_token_id
        self.stop_token_ids = tuple(sorted(stop_token_ids))
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.gradient_checkpointing = gradient_checkpointing
        self.device = device()
        if gradient_checkpointing:
            networks.checkpoint_gradients()
        self._check_head()

    def _check_head(self) -> None:
        """Make sure that decoder and LM head alone give the model's logits.

        Some architectures scale or cap logits between the two; log-probabilities that skipped
        this would be of another distribution than the one sampled from.
        """
        ids = torch.arange(1, 5, device=self.device)[None, :]
        with torch.no_grad():
            decoder = self.networks.activate("policy", training=False)
            direct = self.networks.lm_head("policy")(decoder(ids, use_cache=False)[0])
            whole = self.networks.language_model("policy")(ids, use_cache=False).logits
        if not torch.allclose(direct.float(), whole.float(), atol=1e-3, rtol=1e-3):
            raise EnvironmentFault(
                "this architecture changes logits after its LM head, which PPO here does not follow",
                "model.name_or_path",
                "Use another base model.",
            )

    def _hidden(self, role: Role, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return the states [B, T, H] of a role; right padding needs no attention mask."""
        decoder = self.networks.activate(role, training=training)
        decoder.train(training and self.gradient_checkpointing)
        states: Tensor = decoder(batch.ids, use_cache=False)[0]
        return states

    def log_probs(self, role: Role, batch: Sequences, *, training: bool = False) -> TokenLogProbs:
        """Return log-probability and entropy of each response token, at the sampling temperature.

        Args:
            role: policy or reference.
            batch: B episodes.
            training: Whether gradients are wanted.

        Returns:
            Two [B, R] in fp32, 0 where masked.
        """
        with torch.set_grad_enabled(training):
            hidden = self._hidden(role, batch, training=training)
            mask = batch.mask
            rows = torch.arange(len(batch), device=hidden.device)[:, None].expand_as(mask)[mask]
            at = batch.response_positions[mask]
            head = self.networks.lm_head(role)
            flat = token_log_probs(
                head,
                hidden[rows, at - 1],
                batch.ids[rows, at],
                vocabulary=self._vocabulary(head),
                temperature=self.temperature,
            )
            return TokenLogProbs(*(_spread(part, mask) for part in flat))

    @staticmethod
    def _vocabulary(head: torch.nn.Module) -> int:
        weight = head.get_parameter("weight")
        return int(getattr(head, "out_features", 0) or weight.shape[0])

    def values(self, batch: Sequences, *, training: bool = False) -> Tensor:
        """Return V(s_t), read at the token before each response token: [B, R], 0 where masked."""
        with torch.set_grad_enabled(training):
            hidden = self._hidden("critic", batch, training=training)
            mask = batch.mask
            rows = torch.arange(len(batch), device=hidden.device)[:, None].expand_as(mask)[mask]
            states = hidden[rows, batch.response_positions[mask] - 1]
            return _spread(self.networks.value_head(states.float()).squeeze(-1), mask)

    @torch.no_grad()
    def raw_scores(self, batch: Sequences) -> Tensor:
        """Return the reward model's scores [B], read at the last response token."""
        hidden = self._hidden("reward", batch)
        rows = torch.arange(len(batch), device=hidden.device)
        states = hidden[rows, batch.last_positions]
        scores: Tensor = self.networks.score_head(states.float()).squeeze(-1)
        return scores

    def scores(self, batch: Sequences) -> Tensor:
        """Return scores [B] on the scale of rewards: mean 0, deviation 1 over SFT samples."""
        raw = self.raw_scores(batch)
        return raw if self.normalization is None else self.normalization.apply(raw)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], role: Role = "policy") -> list[list[int]]:
        """Sample a response to each prompt, from the torch generator's present state.

        The distribution is the softmax at the temperature and nothing else: no top-k, top-p or
        penalty, so that log-probabilities are of what was sampled.

        Args:
            prompts: Token ids, one list a prompt.
            role: policy, or reference for the SFT policy's responses.

        Returns:
            Token ids of each response, its stop token included where it ended by one.
        """
        from transformers import GenerationConfig

        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[self.pad_token_id] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        self.networks.activate(role, training=False).eval()
        output = self.networks.language_model(role).generate(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            generation_config=GenerationConfig(
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.max_new_tokens,
                eos_token_id=list(self.stop_token_ids),
                pad_token_id=self.pad_token_id,
                use_cache=True,
            ),
        )
        return [self._cut(row) for row in output[:, width:].tolist()]

    def _cut(self, tokens: list[int]) -> list[int]:
        for at, token in enumerate(tokens):
            if token in self.stop_token_ids:
                return tokens[: at + 1]
        return tokens

    def ended(self, response: Sequence[int]) -> bool:
        """Say whether a response ended by a stop token, rather than at the length limit."""
        return response[-1] in self.stop_token_ids

    def trainable(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return what a role's optimiser moves, by name."""
        return self.networks.parameters(role)


def _spread(flat: Tensor, mask: Tensor) -> Tensor:
    """Return [B, R] with `flat` [N] where the mask is True and 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def load_roles(
    recipe: Recipe,
    tokenizer: Any,
    stop_token_ids: Sequence[int],
    sft: Path,
    rm: Path | None,
    policy: Path | None = None,
) -> Roles:
    """Load what PPO and the evaluation need, with one base where the checkpoints are adapters.

    Args:
        recipe: Model and sampling.
        tokenizer: For its pad token.
        stop_token_ids: What ends a response.
        sft: The SFT checkpoint.
        rm: The reward model, or None for language roles alone.
        policy: A PPO checkpoint, where the policy shall not start as SFT.

    Raises:
        CheckpointError: Checkpoints of different kinds, or damaged ones.
    """
    normalization = ScoreNormalization.load(rm) if rm is not None else None
    kinds = {folder: is_adapter(folder) for folder in (sft, rm, policy) if folder is not None}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(
            f"{folder} ({'adapter' if adapter else 'whole model'})"
            for folder, adapter in kinds.items()
        )
        raise CheckpointError(
            f"adapters and whole models cannot serve together: {listed}",
            hint="Train the stages with the same lora setting.",
        )
    networks: Networks
    if kinds[sft]:
        networks = AdapterNetworks(recipe.model, sft, rm, normalization, policy)
    else:
        networks = ModelNetworks(
            recipe.model, sft, rm, normalization, policy, tokenizer.pad_token_id
        )
    return Roles(
        networks,
        normalization,
        pad_token_id=tokenizer.pad_token_id,
        stop_token_ids=stop_token_ids,
        max_new_tokens=recipe.ppo.max_new_tokens,
        temperature=recipe.ppo.temperature,
        gradient_checkpointing=recipe.ppo.gradient_checkpointing,
    )
