"""Recipe sections of the stages that TRL's trainers run: `sft` and `reward_model`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhfctl.recipe.base import Count, NonNegative, Positive, Section, Share
from rlhfctl.recipe.library_names import Optimizer  # noqa: TC001 (pydantic reads it)


class TrainingSection(Section):
    """Settings that both supervised stages share, named as in transformers."""

    learning_rate: Positive = Field(2e-4, description="Peak learning rate.")
    num_train_epochs: Positive = Field(
        1.0, description="Passes over the training rows; may be a fraction."
    )
    per_device_train_batch_size: Count = Field(
        8, description="Rows per process in one training forward pass."
    )
    per_device_eval_batch_size: Count = Field(
        16, description="Rows per process in one forward pass without gradients."
    )
    gradient_accumulation_steps: Count = Field(16, description="Forward passes per optimizer step.")
    max_length: Count = Field(
        1024,
        description="Longest row, prompt and response together, in tokens; longer ones are "
        "unusable (`data.bad_rows`).",
    )
    group_by_length: bool = Field(
        False,
        description="Batches of rows of about the same length, which need less padding; the order is "
        "still drawn by the seed.",
    )
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant"] = Field(
        "cosine",
        description="Learning-rate schedule after the warm-up; `cosine_with_min_lr` ends at 0.1 of "
        "the peak, `linear` and `cosine` at 0.",
    )
    warmup_ratio: Share = Field(
        0.03, description="Share of the optimizer steps in which the learning rate rises from 0."
    )
    weight_decay: NonNegative = Field(0.0, description="Weight decay of AdamW.")
    max_grad_norm: Positive = Field(1.0, description="Norm that gradients are clipped to.")
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute activations in the backward pass: less memory, more time.",
    )
    optim: Optimizer = Field(
        "adamw_torch",
        description="Optimizer, as named in transformers; some need a package of their own.",
    )
    logging_steps: Count = Field(5, description="Optimizer steps between logged metrics.")
    save_minutes: Positive | None = Field(
        10.0,
        description="Most minutes of training that a kill may lose: checkpoints to resume from are "
        "saved that often, and after the last step. With null only `save_steps` and a signal to "
        "stop save any.",
    )
    save_steps: Count | None = Field(
        None, description="Optimizer steps between further checkpoints; null saves none."
    )
    keep_last: int = Field(
        2,
        ge=2,
        description="Newest checkpoints to keep. Of two, one has been trained on from, so it is "
        "known to be sound.",
    )
    eval_steps: Count | None = Field(
        None,
        description="Optimizer steps between evaluations of the loss on held-out rows, which also "
        "follow the last step; null evaluates after training only.",
    )
    load_best_model_at_end: bool = Field(
        False,
        description="The result is the evaluated state with the lowest held-out loss, whose "
        "checkpoint is kept beside the newest ones. Needs `eval_steps`; the metrics on the same "
        "held-out rows are then slightly optimistic.",
    )

    @model_validator(mode="after")
    def _best_of_evaluations(self) -> Self:
        if self.load_best_model_at_end and self.eval_steps is None:
            raise ValueError(
                "load_best_model_at_end needs evaluations during training, and eval_steps is null; "
                "set eval_steps, for example to 50"
            )
        return self


class SFTSection(TrainingSection):
    """Supervised fine-tuning on demonstrations with TRL's SFTTrainer."""

    init_from: str | None = Field(
        None,
        description="Folder of a LoRA adapter to continue training; null starts a new adapter.",
    )
    assistant_turns: Literal["last", "all"] = Field(
        "last",
        description="Turns of a conversation that the loss counts: its last answer, or `all` of "
        "the assistant's turns, each with its end token.",
    )
    neftune_noise_alpha: Positive | None = Field(
        None,
        description="Scale of uniform noise that is added to the embeddings in training (NEFTune, Jain et "
        "al. 2023), such as 5; null adds none.",
    )
    packing: bool = Field(
        False,
        description="Fill sequences of `max_length` tokens with several rows, which do not see each "
        "other, instead of padding. `per_device_train_batch_size` then counts such sequences.",
    )

    @model_validator(mode="after")
    def _packs_have_one_length(self) -> Self:
        if self.packing and self.group_by_length:
            raise ValueError(
                "packing leaves no padding for group_by_length to save; set one of them"
            )
        return self


class RewardModelSection(TrainingSection):
    """Bradley-Terry reward model, trained with TRL's RewardTrainer."""

    learning_rate: Positive = Field(1e-4, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr", "constant"] = Field(
        "cosine_with_min_lr",
        description="Learning-rate schedule after the warm-up; `cosine_with_min_lr` ends at 0.1 of "
        "the peak, `linear` and `cosine` at 0.",
    )
    per_device_train_batch_size: Count = Field(
        8, description="Pairs per process in one training forward pass."
    )
    gradient_accumulation_steps: Count = Field(8, description="Forward passes per optimizer step.")
    center_rewards_coefficient: NonNegative | None = Field(
        None,
        description="Coefficient of an auxiliary loss that centres scores: the mean of (chosen + "
        "rejected)^2. null omits it.",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0.0,
        lt=0.5,
        description="Assumed probability that a label is wrong; smooths the target by as much.",
    )
    labels: Literal["as_given", "majority", "soft", "weighted"] = Field(
        "as_given",
        description="Use of several labels per pair. `as_given`: one row per label. `majority`: one "
        "row per pair, ties dropped. `soft`: the share of labels per side is the target. "
        "`weighted`: the majority, weighted by its margin.",
    )
    aggregation: Literal["votes", "dawid_skene"] = Field(
        "votes",
        description="Share of labels per side for `labels: majority`, `soft` and `weighted`: share "
        "of votes, or the probability under the Dawid-Skene model of annotators.",
    )
    use_margin: bool = Field(
        False,
        description="Subtract the comparisons' `margin` column from the score difference in the "
        "loss.",
    )
    calibration_samples: int = Field(
        256,
        ge=2,
        description="Responses of the SFT policy that ended, to normalise scores to mean 0 and "
        "standard deviation 1; at most four times as many are sampled.",
    )
    sft: str | None = Field(
        None, description="SFT checkpoint folder to start from; null uses the run's own."
    )
    judge_share: float = Field(
        0.0,
        ge=0.0,
        le=0.5,
        description="Share of the training prompts whose comparisons train a second, held-out "
        "reward model. PPO never sees it; the evaluation judges by it. 0 trains none.",
    )

    @model_validator(mode="after")
    def _sensible_labels(self) -> Self:
        if self.labels == "soft" and self.label_smoothing:
            raise ValueError(
                "labels: soft and label_smoothing both soften the target; use one of them"
            )
        if self.labels == "as_given" and self.aggregation != "votes":
            raise ValueError(
                f"aggregation: {self.aggregation} needs labels: majority, soft or weighted; with "
                "labels: as_given nothing is aggregated"
            )
        if self.labels != "as_given" and self.use_margin:
            raise ValueError(
                f"labels: {self.labels} merges labels that may have different margins; set "
                "use_margin: false or labels: as_given"
            )
        return self
