"""Weights of the roles: one base with an adapter per role, or one model per role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rlhfctl.errors import CheckpointError
from rlhfctl.models import adapters, new_tokens
from rlhfctl.models.base import decoder_of, enable_gradient_checkpointing, load_causal_lm
from rlhfctl.models.device import device
from rlhfctl.models.heads import (
    ScoreNormalization,
    save_value_head,
    value_head_from_score,
    zero_value_head,
)
from rlhfctl.models.linear import use_fast_cpu_layers
from rlhfctl.models.lm_head import LMHead
from rlhfctl.models.precision import autocast, whole_weights_dtype
from rlhfctl.models.scorer import head_of, load_scorer, scorer_class
from rlhfctl.models.sharding import shard_base

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rlhfctl.recipe.schema import ModelSection

Role = str
"""`policy`, `reference`, `critic`, `base`, or a result of `reward_role`."""
BASE: Role = "base"
"""The base with all adapters disabled: the model before SFT."""
CriticInit = Literal["reward_model", "sft", "head"]
"""Initialisation of the critic: the first reward model, or SFT with a value head of zeros; or `head`,
only that head, on the policy's states.

Ziegler et al. 2019's code starts its head at 0, too. It cannot be the reward model's, which reads
states of another adapter; at 0 it predicts the mean of the normalised scores, and adds no gradient to
the policy's states before it has learnt.
"""
TRAINED: tuple[Role, ...] = ("policy", "critic")


def reward_role(number: int) -> Role:
    """Return the role of a reward model: `reward`, `reward_1`, `reward_2` and so on."""
    return f"reward_{number}" if number else "reward"


@dataclass(frozen=True)
class RoleFolders:
    """Checkpoints that initialise the roles.

    Attributes:
        sft: Checkpoint of the reference, and of the policy if `policy` is None.
        rms: Checkpoints of the reward models, in order.
        policy: Checkpoint of a trained policy.
        critic: Initialisation of the critic; None: no critic.
    """

    sft: Path
    rms: Sequence[Path] = ()
    policy: Path | None = None
    critic: CriticInit | None = None


class RoleModels(ABC):
    """Weights of the roles; roles are switched by `activate` only."""

    score_heads: dict[Role, torch.nn.Linear]
    value_head: torch.nn.Linear
    critic_role: Role = "critic"
    """Role whose states the value head reads: the critic's own, or the policy's."""
    has_base = False
    """True if `base` is among the roles."""
    sharded = False
    """True if the base is sharded, so that all processes must compute together."""
    autocast_dtype: torch.dtype | None = None
    """Dtype to compute in where it is not that of the weights."""

    def autocast(self) -> torch.autocast:
        """Return the context in which every pass of the roles' models runs."""
        return autocast(device(), self.autocast_dtype)

    @abstractmethod
    def activate(self, role: Role, *, training: bool) -> torch.nn.Module:
        """Enable a role's adapter, with gradients if `training`, and return the decoder."""

    @abstractmethod
    def language_model(self, role: Role) -> Any:
        """Return a model with `generate` that is valid for a role while the role is active."""

    def lm_head(self, role: Role) -> LMHead:
        """Return the map from hidden states [N, H] of a role to logits [N, V]."""
        return LMHead(self.language_model(role))

    @abstractmethod
    def body_parameters(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters of a role below its head, by name."""

    @abstractmethod
    def save_policy(self, folder: Path) -> None:
        """Write the policy as an ordinary causal language model or adapter."""

    def save_critic(self, folder: Path) -> None:
        """Write the critic as an ordinary token classifier or adapter; a head on the policy alone."""
        if self.critic_role == "policy":
            save_value_head(self.value_head, folder)
        else:
            self._save_own_critic(folder)

    @abstractmethod
    def _save_own_critic(self, folder: Path) -> None:
        """Write a critic that is a network of its own."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass of trained roles, to save memory."""

    def parameters(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return all trainable parameters of a role by name, including the critic's value head."""
        if role == "critic" and self.critic_role == "policy":
            parameters = {}
        else:
            parameters = self.body_parameters(role)
        if role == "critic":
            parameters |= {
                f"value_head.{name}": p for name, p in self.value_head.named_parameters()
            }
        return parameters


class AdapterRoleModels(RoleModels):
    """One base in memory with a LoRA adapter per role.

    Policy and reference start as the SFT adapter. A critic of its own starts as the first reward
    model's adapter or the SFT adapter.
    """

    has_base = True

    def __init__(self, section: ModelSection, folders: RoleFolders) -> None:
        """Load the base and its adapters.

        Args:
            section: Model section of the recipe.
            folders: Folders of the adapters.

        Raises:
            CheckpointError: An adapter is damaged or belongs to another base.
        """
        from peft import PeftModel, get_peft_model
        from transformers import GenerationConfig

        base = load_causal_lm(section)
        self.new_tokens = new_tokens.new_token_ids(section)
        new_tokens.resize(base, self.new_tokens)
        # The model's own sampling defaults (top_p, repetition penalty) must not apply.
        base.generation_config = GenerationConfig()
        self.base_name = str(base.config.name_or_path)
        self._configs: dict[str, Any] = {}
        config = self._role_config(folders.sft)
        self.model: PeftModel = get_peft_model(base, config, adapter_name="reference")
        self._configs["reference"] = config
        self._fill("reference", folders.sft)
        self._add("policy", folders.policy or folders.sft)
        self.score_heads = {}
        for number, rm in enumerate(folders.rms):
            role = reward_role(number)
            self._add(role, rm)
            self.score_heads[role] = _score_head(rm, base)
        if folders.critic is not None:
            self._add_critic(folders, int(base.config.get_text_config().hidden_size))
        self.model.requires_grad_(requires_grad=False)
        self.model.eval()
        use_fast_cpu_layers(base)
        self._decoder = decoder_of(base)
        self._active: tuple[Role, bool] | None = None

    def _add_critic(self, folders: RoleFolders, width: int) -> None:
        if folders.critic == "head":
            self.critic_role, self.value_head = "policy", zero_value_head(width, device())
            return
        from_rm = folders.critic == "reward_model"
        self._add("critic", folders.rms[0] if from_rm else folders.sft)
        self.value_head = (
            value_head_from_score(
                self.score_heads["reward"], ScoreNormalization.load(folders.rms[0])
            )
            if from_rm
            else zero_value_head(width, device())
        )

    @staticmethod
    def _role_config(folder: Path) -> Any:
        config = deepcopy(adapters.read_config(folder))
        config.task_type, config.modules_to_save = "CAUSAL_LM", None
        config.inference_mode, config.lora_dropout = False, 0.0
        config.trainable_token_indices = None  # new tokens' rows become part of the base
        return config

    def _add(self, role: Role, folder: Path) -> None:
        config = self._role_config(folder)
        self.model.add_adapter(role, config)
        self._configs[role] = config
        self._fill(role, folder)

    def _fill(self, role: Role, folder: Path) -> None:
        weights = adapters.read_weights(folder)
        for name in adapters.HEAD_KEYS:
            weights.pop(name, None)
        new_tokens.take_rows(self.model.get_base_model(), weights, self.new_tokens)
        adapters.set_weights(self.model, weights, role, folder)

    def activate(self, role: Role, *, training: bool) -> torch.nn.Module:
        """Enable a role's adapter on the base, or disable all adapters."""
        if self._active != (role, training):
            if role == BASE:
                self.model.base_model.disable_adapter_layers()
            else:
                if self._active is not None and self._active[0] == BASE:
                    self.model.base_model.enable_adapter_layers()
                self.model.set_adapter(role, inference_mode=not training)
            self._active = (role, training)
        return self._decoder

    def language_model(self, role: Role) -> Any:
        """Return the base with the active adapter."""
        return self.model.get_base_model()

    def body_parameters(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return the LoRA matrices of a role, in the model's order."""
        marker = f".{role}."
        return {name: p for name, p in self.model.named_parameters() if marker in name}

    def shard(self) -> None:
        """Shard the frozen base over the processes."""
        shard_base(self.model.get_base_model())
        self.sharded = True

    def checkpoint_gradients(self) -> None:
        """Recompute the activations of the base."""
        enable_gradient_checkpointing(self.model.get_base_model())

    def _saved(self, role: Role) -> dict[str, torch.Tensor]:
        from peft import get_peft_model_state_dict

        weights: dict[str, torch.Tensor] = get_peft_model_state_dict(
            self.model, adapter_name=role, save_embedding_layers=False
        )
        return weights

    def save_policy(self, folder: Path) -> None:
        """Write the policy's adapter."""
        weights, config = self._with_new_tokens("policy", head=True)
        adapters.save_adapter(weights, config, folder, self.base_name, "CAUSAL_LM")

    def _save_own_critic(self, folder: Path) -> None:
        """Write the critic's adapter, with the value head as a token classifier's head."""
        saved, config = self._with_new_tokens("critic", head=False)
        head = scorer_class(self.model.get_base_model().config, per_token=True).head_name
        weights = saved | {
            adapters.head_key(head, "weight"): self.value_head.weight,
            adapters.head_key(head, "bias"): self.value_head.bias,
        }
        adapters.save_adapter(weights, config, folder, self.base_name, "TOKEN_CLS")

    def _with_new_tokens(self, role: Role, *, head: bool) -> tuple[dict[str, torch.Tensor], Any]:
        base = self.model.get_base_model()
        return new_tokens.with_rows(
            self._saved(role), self._configs[role], base, self.new_tokens, head=head
        )


class SeparateRoleModels(RoleModels):
    """One whole model per role, for full fine-tuning (`lora: null`).

    All weights are in fp32, whatever the recipe's dtype: in bfloat16 most updates would be rounded
    away. Passes compute in the recipe's dtype, by autocast. The frozen roles are kept in fp32 too,
    so that reference and policy are computed alike.
    """

    def __init__(self, section: ModelSection, folders: RoleFolders, pad_token_id: int) -> None:
        """Load two language models, a scorer per reward model, and a critic of its own.

        Args:
            section: Precision and attention.
            folders: Folders of the models.
            pad_token_id: Pad token of the tokenizer.
        """
        from transformers import GenerationConfig

        self.autocast_dtype = whole_weights_dtype(section)
        self.models: dict[Role, Any] = {
            "policy": load_causal_lm(section, str(folders.policy or folders.sft), torch.float32),
            "reference": load_causal_lm(section, str(folders.sft), torch.float32),
        }
        for model in self.models.values():
            model.generation_config = GenerationConfig()
        self.score_heads = {}
        for number, rm in enumerate(folders.rms):
            role = reward_role(number)
            self.models[role] = load_scorer(section, pad_token_id, str(rm), dtype=torch.float32)
            self.score_heads[role] = head_of(self.models[role])
        if folders.critic is not None:
            self._add_critic(section, folders, pad_token_id)
        for model in self.models.values():
            model.requires_grad_(requires_grad=False)
            model.eval()
            use_fast_cpu_layers(model)
        for role in TRAINED:
            if role in self.models:
                self.models[role].requires_grad_(requires_grad=True)

    def _add_critic(self, section: ModelSection, folders: RoleFolders, pad_token_id: int) -> None:
        if folders.critic == "head":
            width = int(self.models["policy"].config.get_text_config().hidden_size)
            self.critic_role, self.value_head = "policy", zero_value_head(width, device())
            return
        from_rm = folders.critic == "reward_model"
        source = folders.rms[0] if from_rm else folders.sft
        critic = load_scorer(
            section, pad_token_id, str(source), per_token=True, dtype=torch.float32
        )
        self.value_head = (
            value_head_from_score(
                self.score_heads["reward"], ScoreNormalization.load(folders.rms[0])
            )
            if from_rm
            else zero_value_head(head_of(critic).in_features, device())
        )
        setattr(critic, critic.head_name, self.value_head)
        self.models["critic"] = critic

    def activate(self, role: Role, *, training: bool) -> torch.nn.Module:
        """Return the decoder of the role's model."""
        return decoder_of(self.models[role])

    def language_model(self, role: Role) -> Any:
        """Return the model of the role."""
        return self.models[role]

    def body_parameters(self, role: Role) -> dict[str, torch.nn.Parameter]:
        """Return every parameter of the role's model; for the critic, those below its head."""
        model = self.models[role] if role != "critic" else decoder_of(self.models[role])
        return dict(model.named_parameters())

    def checkpoint_gradients(self) -> None:
        """Recompute the activations of policy and critic."""
        for role in TRAINED:
            if role in self.models:
                enable_gradient_checkpointing(self.models[role])

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a whole model."""
        self.models["policy"].save_pretrained(folder)

    def _save_own_critic(self, folder: Path) -> None:
        """Write the critic as a whole token classifier."""
        self.models["critic"].save_pretrained(folder)


def _score_head(rm: Path, base: Any) -> torch.nn.Linear:
    weights = adapters.read_weights(rm)
    keys = [adapters.head_key(name, "weight") for name in adapters.HEAD_NAMES]
    weight = next((weights[key] for key in keys if key in weights), None)
    hidden = int(base.config.get_text_config().hidden_size)
    if weight is None or tuple(weight.shape) != (1, hidden):
        shape = "none" if weight is None else str(list(weight.shape))
        raise CheckpointError(
            f"the reward model's score head should be [1, {hidden}], found {shape}",
            str(rm / adapters.WEIGHTS),
            "Train it again: rlhfctl train-rm --force",
        )
    head = torch.nn.Linear(hidden, 1, bias=False, dtype=torch.float32)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head.requires_grad_(requires_grad=False).to(device())
