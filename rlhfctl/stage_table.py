"""The stages: names, inputs, and the recipe keys that each reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: Name in the manifest and in options such as ``--rm``.
        command: Subcommand that runs only this stage.
        module: Folder of `rlhfctl.stages` with its `stage.py`.
        title: Heading for people.
        product: Noun phrase for its result, as in "needs an SFT checkpoint".
        folder: Result folder inside the run folder.
        requires: Names of stages whose results are required.
        accepts: Names of stages whose results are used if they exist; includes `requires`.
        reads: Recipe keys that the result depends on; a section includes all of its keys.
        excludes: Keys within `reads` that the stage cannot read, since its result does not
            depend on them.
        neutral: Keys within `reads` that the result does not depend on: when checkpoints are saved and
            kept, how memory is found, and where a server runs.
        checkpoint_keys: Name of an accepted stage -> recipe keys that replace its result by a
            checkpoint from elsewhere; the first that is not null counts.
        data: Kinds of data that it always reads, as named in the recipe's `data`.
        main_process_only: Whether process 0 runs it alone while the others wait.
        progress: Metrics of the progress line, in order.
    """

    name: str
    command: str
    module: str
    title: str
    product: str
    folder: str
    requires: tuple[str, ...]
    accepts: tuple[str, ...]
    reads: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    checkpoint_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    data: tuple[str, ...] = ()
    main_process_only: bool = False
    progress: tuple[str, ...] = ()

    def declared(self, keys: Iterable[str]) -> list[str]:
        """Return those of some recipe keys that the stage may read, in their order."""
        return [
            key for key in keys if is_below(key, self.reads) and not is_below(key, self.excludes)
        ]


def is_below(key: str, names: tuple[str, ...]) -> bool:
    """Return whether a key is one of the names or lies in a section of that name."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


# Keys are declared without conditions, although some are read only under others (PPO-ptx,
# held-out evaluations): a needless re-run in rare cases is better than a stale result.
_BASE = ("seed", "model", "lora")
_TRAINING = (*_BASE, "auto_batch")
_BAD_ROWS = ("data.bad_rows", "data.max_bad_fraction")
_REWARD_SOURCES = ("ppo.reward_sources", "ppo.reward_rule", "ppo.uncertainty_penalty")

SFT = Stage(
    name="sft",
    command="sft",
    module="sft",
    title="SFT",
    product="an SFT checkpoint",
    folder="sft",
    requires=(),
    accepts=(),
    reads=(*_TRAINING, "sft", "generation.stop_tokens", "data.demonstrations", *_BAD_ROWS),
    neutral=("auto_batch", "sft.save_minutes", "sft.save_steps", "sft.keep_last"),
    data=("demonstrations",),
    progress=("loss", "token_accuracy", "eval_loss", "tokens_per_second", "memory_bytes"),
)
REWARD_MODEL = Stage(
    name="rm",
    command="train-rm",
    module="reward_model",
    title="Reward model",
    product="a reward model",
    folder="rm",
    requires=("sft",),
    accepts=("sft",),
    reads=(
        *(*_TRAINING, "reward_model", "generation"),
        *("data.comparisons", "data.prompts", *_BAD_ROWS),
        # Gold comparisons are taken from prompts that no stage trains on.
        "data.demonstrations.held_out",
        # Score normalization samples the SFT policy in PPO's batches.
        *("ppo.rollout_batch_size", "ppo.forward_batch_size"),
    ),
    neutral=(
        *("auto_batch", "reward_model.save_minutes"),
        *("reward_model.save_steps", "reward_model.keep_last"),
    ),
    checkpoint_keys={"sft": ("reward_model.sft",)},
    data=("comparisons", "prompts"),
    progress=("loss", "accuracy", "margin", "tokens_per_second", "memory_bytes"),
)
PPO = Stage(
    name="ppo",
    command="ppo",
    module="ppo",
    title="PPO",
    product="a PPO policy",
    folder="ppo",
    requires=("sft", "rm"),
    accepts=("sft", "rm"),
    reads=(
        *(*_TRAINING, "ppo", "generation"),
        # Held-out prompts are those that no stage trains on, hence all three data sets.
        "data",
        # PPO-ptx leaves out the demonstrations that SFT leaves out.
        "sft.max_length",
        # Held-out evaluations avoid the evaluation's prompts and share its reward model.
        *("evaluation.num_prompts", "evaluation.judge_rm", "evaluation.judge_rm_loading"),
        # The scale of a reward model from elsewhere is measured on as many SFT responses.
        "reward_model.calibration_samples",
    ),
    neutral=(
        *("auto_batch", "ppo.save_minutes", "ppo.save_rollouts", "ppo.keep_last"),
        # Where vLLM runs. What it computes is compared with the policy's own numbers.
        *("ppo.vllm.server_base_url", "ppo.vllm.api_key_env", "ppo.vllm.adapter_folder"),
        *("ppo.vllm.server_timeout", "ppo.vllm.request_timeout", "ppo.vllm.python"),
        "ppo.vllm.gpu_memory_utilization",
    ),
    checkpoint_keys={"sft": ("ppo.sft",), "rm": ("ppo.rm",)},
    data=("prompts",),
    progress=(
        *("score", "kl", "held_out_true_reward", "reward", "response_length"),
        *("episodes_per_second", "memory_bytes"),
    ),
)
EVALUATION = Stage(
    name="eval",
    command="eval",
    module="evaluation",
    title="Evaluation",
    product="an evaluation",
    folder="eval",
    requires=("sft",),
    accepts=("sft", "rm", "ppo"),
    reads=(
        *(*_BASE, "evaluation", "generation", "data", *_REWARD_SOURCES),
        # Scores by the rules of PPO's objective.
        *("ppo.score_clip", "ppo.missing_eos_score"),
        *("ppo.min_response_length", "ppo.score_normalization"),
        *("sft.max_length", "reward_model.max_length"),
        *("reward_model.per_device_eval_batch_size", "reward_model.calibration_samples"),
    ),
    # Gates are bounds on the metrics, checked after every evaluation.
    excludes=("evaluation.gates",),
    # By default the evaluation uses what PPO was given.
    checkpoint_keys={
        "sft": ("evaluation.sft", "ppo.sft"),
        "rm": ("evaluation.rm", "ppo.rm"),
        "ppo": ("evaluation.ppo",),
    },
    data=("prompts",),
    main_process_only=True,
    progress=("proxy", "gold", "kl", "length"),
)

DPO = Stage(
    name="dpo",
    command="dpo",
    module="dpo",
    title="DPO",
    product="a DPO policy",
    folder="dpo",
    requires=("sft",),
    accepts=("sft",),
    reads=(
        *(*_TRAINING, "dpo", "generation.stop_tokens", "data.comparisons", *_BAD_ROWS),
        # Comparisons of the held-out reward model, which may judge the policy, are left out.
        "reward_model.judge_share",
    ),
    neutral=("auto_batch", "dpo.save_minutes", "dpo.save_steps", "dpo.keep_last"),
    checkpoint_keys={"sft": ("dpo.sft",)},
    data=("comparisons",),
    progress=("loss", "accuracy", "margin", "tokens_per_second", "memory_bytes"),
)

STAGES = (SFT, REWARD_MODEL, PPO, EVALUATION)
"""The stages of `rlhfctl run`, in order."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
ALL_STAGES = (SFT, REWARD_MODEL, PPO, DPO, EVALUATION)
"""Also the stages that only a command of their own runs, each before what may read its result."""


def stage_named(name: str) -> Stage:
    """Return the stage with a name.

    Raises:
        KeyError: There is no such stage.
    """
    for stage in ALL_STAGES:
        if stage.name == name:
            return stage
    raise KeyError(name)
