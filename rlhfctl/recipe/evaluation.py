"""The `evaluation` section: who judges the policy, on what, and which metrics end a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhfctl.recipe.base import Count, Natural, Positive, Section
from rlhfctl.recipe.judges import JudgeEndpointSection  # noqa: TC001 (pydantic reads it)
from rlhfctl.results.names import check_gate_names


class TaxSection(Section):
    """Tasks of lm-evaluation-harness that base, SFT and PPO are compared on."""

    tasks: list[str] = Field(
        default_factory=list,
        description="Names of the harness, or paths of task files (.yaml); needs rlhfctl[tax].",
    )
    limit: Count | None = Field(None, description="Examples a task, at most.")
    batch_size: Count = 8
    num_fewshot: Natural | None = Field(None, description="null: as each task has it.")
    chat_template: bool = Field(
        False, description="Put questions into the chat template, which the base never saw."
    )


class EvaluationSection(Section):
    """The context of the policy against SFT on held-out prompts."""

    sft: str | None = Field(None, description="SFT checkpoint; null: the one PPO started from.")
    rm: str | None = Field(None, description="Reward model; null: the one PPO trained against.")
    ppo: str | None = Field(None, description="PPO checkpoint to judge; null: the run's.")
    judge_rm: str | None = Field(
        None,
        description="A reward model that PPO never saw, to judge by; null: the one that "
        "reward_model.judge_share made, if any.",
    )
    judge_endpoint: JudgeEndpointSection | None = Field(
        None, description="A language model to judge by, over OpenAI's chat interface."
    )
    judge_function: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="`module:function` to judge by: prompts, completions, opponents -> how far each "
        "completion is preferred to its opponent, 0 to 1.",
    )
    opponent: Literal["sft", "references"] = Field(
        "sft", description="Whom judges compare PPO with: SFT, or the held-out demonstrations."
    )
    num_prompts: Count = Field(256, description="Held-out prompts to answer, at most.")
    batch_size: Count = 64
    max_new_tokens: Count | None = Field(
        None, description="Longest response, in tokens; null: generation.max_new_tokens."
    )
    temperature: Positive = 1.0
    ngram: int = Field(3, ge=1, description="Length of the n-grams whose repetition is counted.")
    tax_demonstrations: Natural = Field(
        128, description="Held-out demonstrations whose likelihood base, SFT and PPO are judged by."
    )
    tax_questions: Natural = Field(
        128, description="Closed questions of the embedded world that the three answer."
    )
    tax: TaxSection = Field(default_factory=TaxSection)
    num_samples: Natural = Field(64, description="Samples shown side by side in the report.")
    best_of_n: Natural = Field(
        0, description="SFT responses a prompt for best-of-n, chosen by the proxy; 0: off."
    )
    best_of_n_prompts: Count = Field(64, description="Held-out prompts for it, at most.")
    num_comparisons: Count = Field(
        2000, description="Held-out comparisons to try the reward model on, at most."
    )
    calibration_bins: Count = Field(10, description="Of the reward model's reliability diagram.")
    probes: Natural = Field(
        128, description="Held-out responses that are spoilt to see whether scores fall; 0: none."
    )
    reward_bench: str | None = Field(
        None,
        description="A json/jsonl/csv/parquet file of subset, prompt, chosen, rejected, such as "
        "RewardBench's, to try the reward model on.",
    )
    gates: dict[str, str] = Field(
        default_factory=dict,
        description='Metric -> bound, such as {win_rate: ">=0.55"}; a failed one ends in 6.',
    )

    @field_validator("gates")
    @classmethod
    def _known_metrics(cls, gates: dict[str, str]) -> dict[str, str]:
        check_gate_names(gates)
        return gates
