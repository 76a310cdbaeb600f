"""What a recipe may contain: every key, its type, its default and what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.base import Count, Natural, NonNegative, Positive, Section, Share
from rlhfctl.recipe.evaluation import EvaluationSection
from rlhfctl.recipe.generation import GenerationSection
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.recipe.sweep import SweepSection

if TYPE_CHECKING:
    from collections.abc import Iterator


class ModelSection(Section):
    """The base model that every role stands on."""

    name_or_path: str = Field("embedded", description="Hub id, local folder, or `embedded`.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the base's weights; auto: bfloat16 on CUDA, float32 on CPU."
    )
    quantization: Literal["none", "4bit", "8bit", "auto"] = Field(
        "none", description="4bit is NF4, double quantised; auto: 4bit on a CUDA GPU, else none."
    )
    attn_implementation: str | None = Field(
        None, description="As in transformers (sdpa, eager, flash_attention_2); null: its choice."
    )
    trust_remote_code: bool = Field(
        False, description="Run code from the model's repository; needs a pinned revision."
    )
    chat_template: str | None = Field(
        None, description="A Jinja file to use instead of the tokenizer's own chat template."
    )


class LoraSection(Section):
    """The adapters; `lora: null` trains all weights instead."""

    r: Count = Field(16, description="Rank of every adapter.")
    alpha: Positive = Field(32, description="Adapters are scaled by alpha / r.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="In SFT and RM only; 0 in PPO.")
    target_modules: str | list[str] = Field(
        "all-linear", description="Module names, or all linear layers but the heads."
    )


class DatasetSection(Section):
    """Where one kind of row comes from."""

    source: str = Field(
        "embedded",
        description="`embedded`, a hub id, a json/jsonl/csv/parquet file, or a saved folder.",
    )
    config: str | None = Field(None, description="A hub data set's configuration.")
    split: str = Field("train", description="A hub or saved data set's split.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our column name -> the name in the source."
    )
    max_rows: Count | None = Field(None, description="Take this many rows at most; null: all.")
    held_out: float = Field(
        0.1, gt=0.0, lt=1.0, description="Share of prompts kept out of training."
    )


class ComparisonsSection(DatasetSection):
    """Where comparisons come from; rows that compare the same responses are labels of one pair."""

    labels_per_pair: Count = Field(
        1,
        description="Annotators of the embedded panel who label each pair; max_rows counts labels.",
    )

    @model_validator(mode="after")
    def _of_the_world(self) -> Self:
        if self.labels_per_pair > 1 and self.source != "embedded":
            raise ValueError(
                "labels_per_pair asks the embedded panel; the labels of another source are its rows: "
                "leave labels_per_pair out"
            )
        return self


class DataSection(Section):
    """The three kinds of data, and what to do with rows that cannot be used."""

    demonstrations: DatasetSection = Field(default_factory=DatasetSection)
    comparisons: ComparisonsSection = Field(default_factory=ComparisonsSection)
    prompts: DatasetSection = Field(default_factory=DatasetSection)
    bad_rows: Literal["drop", "refuse"] = Field(
        "drop", description="Rows that are empty, not text, tied or too long: drop, or end."
    )


class TrainingSection(Section):
    """What the two supervised stages have in common; names as in transformers."""

    learning_rate: Positive = 2e-4
    num_train_epochs: Positive = 1.0
    per_device_train_batch_size: Count = 8
    per_device_eval_batch_size: Count = 16
    gradient_accumulation_steps: Count = 16
    max_length: Count = Field(1024, description="Longer rows are dropped, in tokens.")
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant"] = "cosine"
    warmup_ratio: Share = Field(0.03, description="Share of the steps that warm the rate up.")
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    gradient_checkpointing: bool = False
    optim: str = Field("adamw_torch", description="An optimiser's name in transformers.")
    logging_steps: Count = 5
    save_steps: Count | None = Field(None, description="Steps between checkpoints; null: none.")


class SFTSection(TrainingSection):
    """Supervised fine-tuning on demonstrations, by TRL's SFTTrainer."""

    init_from: str | None = Field(None, description="Go on from this LoRA adapter's folder.")


class RewardModelSection(TrainingSection):
    """The Bradley-Terry reward model, by TRL's RewardTrainer."""

    learning_rate: Positive = 1e-4
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant"] = (
        "cosine_with_min_lr"
    )
    per_device_train_batch_size: Count = 8
    gradient_accumulation_steps: Count = 8
    center_rewards_coefficient: NonNegative | None = Field(
        None, description="TRL's centring: this times the mean of (chosen + rejected)^2."
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=0.5, description="Share of labels taken to be wrong, whichever they are."
    )
    labels: Literal["as_given", "majority", "soft", "weighted"] = Field(
        "as_given",
        description="Of pairs with several labels: each a row; the majority's (ties dropped); the "
        "share for each side as target; the majority's, weighted by how clear it is.",
    )
    aggregation: Literal["votes", "dawid_skene"] = Field(
        "votes", description="What a side's share is: of votes, or Dawid-Skene's probability."
    )
    use_margin: bool = Field(False, description="Use the comparisons' `margin` column.")
    calibration_samples: int = Field(
        256, ge=2, description="SFT responses over which scores get mean 0, deviation 1."
    )
    sft: str | None = Field(None, description="SFT checkpoint to start from; null: the run's.")
    judge_share: float = Field(
        0.0,
        ge=0.0,
        le=0.5,
        description="Share of the training prompts whose comparisons train a second reward model, "
        "one that PPO never sees, to judge the policy by; 0: none.",
    )

    @model_validator(mode="after")
    def _sensible_labels(self) -> Self:
        if self.labels == "soft" and self.label_smoothing:
            raise ValueError(
                "labels: soft and label_smoothing both soften the target; give one of them"
            )
        if self.labels == "as_given" and self.aggregation != "votes":
            raise ValueError(
                f"aggregation: {self.aggregation} aggregates the labels of a pair, and labels: "
                "as_given leaves each as it is; set labels to majority, soft or weighted"
            )
        if self.labels != "as_given" and self.use_margin:
            raise ValueError(
                f"labels: {self.labels} makes one row of a pair's labels, each of which may have "
                "another margin; set use_margin: false or labels: as_given"
            )
        return self


class TrackingSection(Section):
    """Trackers beside the run's own metrics files."""

    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="Each needs its package; a failing one never ends a run."
    )


class Recipe(Section):
    """One run: model, data, and the settings of the four stages."""

    name: str = Field("base", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    seed: Natural = 0
    model: ModelSection = Field(default_factory=ModelSection)
    lora: LoraSection | None = Field(default_factory=LoraSection)
    data: DataSection = Field(default_factory=DataSection)
    generation: GenerationSection = Field(default_factory=GenerationSection)
    sft: SFTSection = Field(default_factory=SFTSection)
    reward_model: RewardModelSection = Field(default_factory=RewardModelSection)
    ppo: PPOSection = Field(default_factory=PPOSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    tracking: TrackingSection = Field(default_factory=TrackingSection)
    sweep: SweepSection = Field(default_factory=SweepSection)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = list(self._contradictions())
        if errors:
            raise ValueError("; ".join(errors))
        return self

    def _contradictions(self) -> Iterator[str]:
        """Yield a sentence per contradiction between sections."""
        if self.lora is None and self.model.quantization != "none":
            yield (
                "lora: null trains all weights, which a quantised base (model.quantization: "
                f"{self.model.quantization}) does not allow; set quantization to none or give lora"
            )
        if self.reward_model.labels != "as_given" and (
            self.data.comparisons.source == "embedded"
            and self.data.comparisons.labels_per_pair == 1
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
        if self.model.trust_remote_code and self.model.revision is None:
            yield (
                "model.trust_remote_code needs model.revision pinned to a commit, so that the "
                "code that runs is the code that was reviewed"
            )
