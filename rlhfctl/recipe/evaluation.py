"""The `evaluation` section: prompts, judges, metrics and gates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhfctl.recipe.base import Count, Natural, Positive, Section
from rlhfctl.recipe.judges import JudgeEndpointSection  # noqa: TC001 (pydantic reads it)
from rlhfctl.recipe.reward_sources import RewardModelLoading
from rlhfctl.results.gates import parse_gates
from rlhfctl.results.names import check_gate_names


class TaxSection(Section):
    """Alignment tax: tasks of lm-evaluation-harness that base, SFT and PPO are compared on."""

    tasks: list[str] = Field(
        default_factory=list,
        description="Task names of lm-evaluation-harness, or paths of task files (.yaml); needs "
        "the extra `rlhfctl[tax]`. Empty runs none.",
    )
    limit: Count | None = Field(
        None, description="Largest number of examples per task; null uses all."
    )
    batch_size: Count = Field(8, description="Examples per forward pass.")
    num_fewshot: Natural | None = Field(
        None, description="Few-shot examples per prompt; null uses each task's own number."
    )
    chat_template: bool = Field(
        False,
        description="Format the examples with the chat template, which the base model was not "
        "trained on.",
    )


class EvaluationSection(Section):
    """Comparison of the PPO policy with SFT on held-out prompts."""

    sft: str | None = Field(
        None, description="SFT checkpoint folder; null uses the one that PPO started from."
    )
    rm: str | None = Field(
        None, description="Reward-model folder; null uses the one that PPO trained against."
    )
    ppo: str | None = Field(
        None, description="Folder of the PPO policy to evaluate; null uses the run's own."
    )
    judge_rm: str | None = Field(
        None,
        description="Reward model to judge by, one that PPO did not train against: a folder or "
        "`hub:ID`; null uses the held-out reward model of `reward_model.judge_share`, if any.",
    )
    judge_rm_loading: RewardModelLoading = Field(
        default_factory=RewardModelLoading,
        description="Loading of a `judge_rm` from elsewhere; not read for a folder of train-rm.",
    )
    judge_endpoint: JudgeEndpointSection | None = Field(
        None,
        description="Language model to judge by, over an OpenAI-compatible API; null uses none.",
    )
    judge_function: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="Python function to judge by, as `module:function`. It takes prompts, "
        "completions and opponents, and returns for each completion the probability from 0 to 1 "
        "that it is preferred. null uses none.",
    )
    opponent: Literal["sft", "references"] = Field(
        "sft",
        description="Responses that PPO is compared with: the SFT policy's, or those of the "
        "held-out demonstrations.",
    )
    num_prompts: Count = Field(
        256, description="Largest number of held-out prompts to generate responses to."
    )
    batch_size: Count = Field(64, description="Responses per forward pass.")
    max_new_tokens: Count | None = Field(
        None, description="Longest response, in tokens; null uses `generation.max_new_tokens`."
    )
    temperature: Positive = Field(
        1.0, description="Sampling temperature of the evaluated responses."
    )
    ngram: int = Field(
        3, ge=1, description="Length of the n-grams whose repetition is measured, in tokens."
    )
    tax_demonstrations: Natural = Field(
        128,
        description="Held-out demonstrations whose log-likelihood is compared between base, SFT "
        "and PPO; 0 skips this.",
    )
    tax_questions: Natural = Field(
        128,
        description="Closed questions with a known answer that base, SFT and PPO are tested on, "
        "for embedded prompts only; 0 skips this.",
    )
    tax: TaxSection = Field(
        default_factory=TaxSection,
        description="Tasks of lm-evaluation-harness that base, SFT and PPO are compared on.",
    )
    num_samples: Natural = Field(
        64, description="Prompts whose responses are shown side by side in the report."
    )
    best_of_n: Natural = Field(
        0,
        description="SFT responses per prompt for the best-of-n baseline, chosen by the proxy "
        "reward; 0 disables it.",
    )
    best_of_n_prompts: Count = Field(
        64, description="Largest number of held-out prompts for best-of-n."
    )
    num_comparisons: Count = Field(
        2000,
        description="Largest number of held-out comparisons that the reward model is evaluated on.",
    )
    calibration_bins: Count = Field(
        10, description="Bins of the reward model's reliability diagram."
    )
    probes: Natural = Field(
        128,
        description="Held-out responses that are corrupted to test whether the reward model's "
        "scores fall, and comparisons that are edited harmlessly to test whether its preference "
        "stands; 0 disables both.",
    )
    reward_bench: str | None = Field(
        None,
        description="File (.json, .jsonl, .csv or .parquet) with columns subset, prompt, chosen and "
        "rejected, as in RewardBench and RewardBench 2, that the reward model is evaluated on; null uses "
        "none.",
    )
    gates: dict[str, str] = Field(
        default_factory=dict,
        description='Bounds on metrics, such as {win_rate: ">=0.55"}. A metric outside its bound '
        "ends the command with exit code 6.",
    )

    @field_validator("gates")
    @classmethod
    def _valid_gates(cls, gates: dict[str, str]) -> dict[str, str]:
        check_gate_names(gates)
        parse_gates(gates)
        return gates
