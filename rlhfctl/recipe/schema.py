"""The schema of a recipe: every key with type, default and description."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from rlhfctl.recipe.base import Count, Natural, Positive, Section
from rlhfctl.recipe.data import ComparisonsSection as ComparisonsSection  # noqa: PLC0414
from rlhfctl.recipe.data import DataSection
from rlhfctl.recipe.data import DatasetSection as DatasetSection  # noqa: PLC0414
from rlhfctl.recipe.data import Preset as Preset  # noqa: PLC0414
from rlhfctl.recipe.dpo import DPOSection
from rlhfctl.recipe.engine import engine_faults
from rlhfctl.recipe.evaluation import EvaluationSection
from rlhfctl.recipe.generation import GenerationSection
from rlhfctl.recipe.library_names import ATTENTIONS, attention_fault
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.recipe.sweep import SweepSection
from rlhfctl.recipe.template_date import date_fault
from rlhfctl.recipe.training import RewardModelSection, SFTSection

if TYPE_CHECKING:
    from collections.abc import Iterator


class ModelSection(Section):
    """The base model that every role is built on."""

    name_or_path: str = Field(
        "embedded",
        description="Base model: a Hub id, a local folder, or `embedded` (the small model that "
        "comes with rlhfctl).",
    )
    revision: str | None = Field(
        None,
        description="Branch, tag or commit of a Hub model; null uses the default branch.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Data type of the base weights; `auto` is bfloat16 on CUDA and float32 on CPU. "
        "Adapters and heads are always float32.",
    )
    quantization: Literal["none", "4bit", "8bit", "auto"] = Field(
        "none",
        description="Quantization of the base weights by bitsandbytes. `4bit` is NF4 with double "
        "quantization; `auto` is `4bit` on a CUDA GPU and `none` elsewhere.",
    )
    attn_implementation: str | None = Field(
        None,
        description="Attention implementation as named in transformers, such as `sdpa`, `eager` or "
        "`flash_attention_2`; null uses transformers' default. A repository of kernels, with a slash, "
        "needs the option `--allow-remote-code`.",
        json_schema_extra={
            "anyOf": [
                {"enum": [*ATTENTIONS]},
                {"type": "string", "pattern": "/"},
                {"type": "null"},
            ]
        },
    )
    use_liger_kernel: bool = Field(
        False,
        description="Compute norms, rotary embeddings and gated MLPs by Liger's Triton kernels, on a GPU, with "
        "`pip install 'rlhfctl[liger]'`. Losses stay as they are.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Run Python code from the model's repository; requires `model.revision`, a "
        "commit of 40 hexadecimal digits, and the option `--allow-remote-code`.",
    )
    chat_template: str | None = Field(
        None,
        description="Chat template: a path of a Jinja file, or the name of one of the tokenizer's "
        "own, such as `tool_use`; null uses the tokenizer's, the one named `default` among several.",
    )
    chat_template_kwargs: dict[str, bool | int | float | str | list[str] | None] = Field(
        default_factory=dict,
        description="Variables of the chat template, such as `enable_thinking: false`, the same in "
        "every stage. `strftime_now` is the date that templates write instead of today's, by default "
        "`2024-07-26`.",
    )
    resize_embeddings: bool = Field(
        False,
        description="Add embedding rows for tokens that the tokenizer has and the model lacks; SFT "
        "trains them, and every adapter holds them.",
    )
    pad_token: str | None = Field(
        None,
        description="Pad token of exported tokenizers; null keeps the tokenizer's own unless it "
        "ends responses, else takes an unused reserved token. Training needs none.",
    )

    @field_validator("attn_implementation")
    @classmethod
    def _an_attention(cls, name: str | None) -> str | None:
        fault = None if name is None else attention_fault(name)
        if fault is not None:
            raise ValueError(fault)
        return name

    @property
    def is_pinned(self) -> bool:
        """True if two loads get the same files: of a commit, or of a path of this machine."""
        local = self.name_or_path.startswith(("/", ".", "~"))
        return local or re.fullmatch(r"[0-9a-f]{40}", self.revision or "") is not None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _dated(cls, variables: dict[str, Any]) -> dict[str, Any]:
        if fault := date_fault(variables):
            raise ValueError(fault)
        return variables

    def remote_code(self) -> str | None:
        """Return the key that makes this machine run a repository's code, or None.

        An attention implementation with a slash is a repository of kernels.
        """
        if self.trust_remote_code:
            return "trust_remote_code"
        return "attn_implementation" if "/" in (self.attn_implementation or "") else None


class LoraSection(Section):
    """LoRA adapters; `lora: null` trains all weights instead."""

    r: Count = Field(16, description="Rank of every adapter.")
    alpha: Positive = Field(
        32,
        description="Scale of every adapter's output: alpha / r, or with `use_rslora` alpha / sqrt(r).",
    )
    use_rslora: bool = Field(
        False,
        description="Scale adapters by alpha / sqrt(r), whose effect does not shrink with the rank "
        "(rank-stabilised LoRA, Kalajdzievski 2023); for ranks from 64 on.",
    )
    dropout: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Dropout probability of adapter inputs in SFT and reward-model training; PPO "
        "uses 0.",
    )
    target_modules: str | list[str] = Field(
        "all-linear",
        description="Names of the modules that get an adapter; `all-linear` is every linear layer "
        "except the heads. A list has the last parts of names; text is a regular expression for "
        "whole names.",
    )

    @field_validator("target_modules")
    @classmethod
    def _patterns(cls, target: str | list[str]) -> str | list[str]:
        if not target or (isinstance(target, list) and "" in target):
            raise ValueError("is empty, or has an empty name; name modules, or use all-linear")
        try:
            re.compile(target if isinstance(target, str) else "")
        except re.error as error:
            raise ValueError(
                f"is no regular expression ({error}); to name modules, write a list"
            ) from error
        return target


class TrackingSection(Section):
    """Experiment trackers, in addition to the run's own metrics files."""

    report_to: Annotated[
        list[Literal["tensorboard", "wandb", "mlflow", "trackio"]],
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = Field(
        default_factory=list,
        description="Trackers that receive the metrics of every stage: one name, or a list. Each "
        "needs its package (`rlhfctl[wandb]`); one that fails is reported once and disabled.",
    )
    project: str = Field(
        "rlhfctl",
        min_length=1,
        description="Project of the trackers (MLflow: experiment). A run is a group in it, and each "
        "stage a run of that group.",
    )


class Recipe(Section):
    """One run: model, data, and the settings of the stages."""

    name: str = Field(
        "base",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Name of the run and of its folder, unless `--run` gives another.",
    )
    seed: Natural = Field(
        0,
        description="Seed of all random numbers: data, initial weights, batches, sampling and "
        "bootstraps.",
    )
    model: ModelSection = Field(
        default_factory=ModelSection, description="The base model of all roles."
    )
    lora: LoraSection | None = Field(
        default_factory=LoraSection, description="LoRA adapters; null trains all weights."
    )
    auto_batch: bool = Field(
        False,
        description="Where memory runs out in training, halve the rows per forward pass and go on; "
        "rows per optimizer step stay the same. Training starts with the longest rows, to find the "
        "size. Needs a single process.",
    )
    data: DataSection = Field(default_factory=DataSection, description="Training and test data.")
    generation: GenerationSection = Field(
        default_factory=GenerationSection, description="Sampling of responses in all stages."
    )
    sft: SFTSection = Field(
        default_factory=SFTSection, description="Stage 1, supervised fine-tuning."
    )
    reward_model: RewardModelSection = Field(
        default_factory=RewardModelSection, description="Stage 2, the reward model."
    )
    ppo: PPOSection = Field(default_factory=PPOSection, description="Stage 3, PPO.")
    dpo: DPOSection = Field(
        default_factory=DPOSection,
        description="DPO, which `rlhfctl dpo` runs from SFT in place of reward model and PPO.",
    )
    evaluation: EvaluationSection = Field(
        default_factory=EvaluationSection, description="Stage 4, the evaluation."
    )
    tracking: TrackingSection = Field(
        default_factory=TrackingSection, description="Experiment trackers that receive all metrics."
    )
    sweep: SweepSection = Field(
        default_factory=SweepSection, description="Settings that `rlhfctl sweep` combines."
    )

    @property
    def sampled_at_once(self) -> int:
        """Responses per batch of sampling in rollouts: `generation.batch_size`, else all of them."""
        return min(
            self.generation.batch_size or self.ppo.rollout_batch_size, self.ppo.rollout_batch_size
        )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = list(self._contradictions())
        if errors:
            raise ValueError("; ".join(errors))
        return self

    def _contradictions(self) -> Iterator[str]:
        """Yield a sentence per contradiction between sections."""
        yield from engine_faults(self)
        if self.lora is None and self.model.quantization != "none":
            yield (
                "lora: null trains all weights, which a quantised base (model.quantization: "
                f"{self.model.quantization}) does not allow; set quantization to none or give lora"
            )
        if self.reward_model.labels != "as_given" and (
            self.data.comparisons.is_embedded and self.data.comparisons.labels_per_pair == 1
        ):
            yield (
                f"reward_model.labels: {self.reward_model.labels} aggregates several labels per "
                "pair, and each embedded pair has one; raise data.comparisons.labels_per_pair"
            )
        shortest, longest = self.ppo.min_response_length, self.generation.max_new_tokens
        if shortest is not None and shortest > longest:
            yield (
                f"ppo.min_response_length ({shortest}) is above generation.max_new_tokens "
                f"({longest})"
            )
        sources = {source.source for source in self.ppo.reward_sources}
        if self.evaluation.judge_rm in sources:
            yield (
                f"evaluation.judge_rm {self.evaluation.judge_rm} is a reward source of PPO too, so "
                "it is no independent judge; name another one, or remove the key"
            )
        if self.auto_batch and self.sft.packing:
            yield (
                "auto_batch divides batches by rows, and with sft.packing a batch is one sequence; "
                "set one of them to false"
            )
        if self.reward_model.judge_share and not self.ppo.uses_rm:
            yield (
                "reward_model.judge_share is set, and no reward model is trained, since none of "
                "ppo.reward_sources is rm; name a judge by evaluation.judge_rm instead"
            )
        if self.model.trust_remote_code and not self.model.is_pinned:
            yield (
                "model.trust_remote_code needs model.revision pinned to a commit of 40 hexadecimal "
                "digits, so that the code that runs is the code that was reviewed"
            )
