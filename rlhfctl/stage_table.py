"""The four stages: what each is called, what it needs, and which recipe keys it reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: In the manifest and in options such as ``--rm``.
        command: The subcommand that runs it alone.
        module: The folder of `rlhfctl.stages` whose `stage.py` runs it.
        title: As a heading.
        product: What it makes, as in "needs an SFT checkpoint".
        folder: Its result folder inside the run folder.
        requires: Stages whose results it cannot run without.
        accepts: Stages whose results it uses where they exist; includes `requires`.
        reads: Recipe keys that its result depends on; a section stands for all of its keys.
        excludes: Keys below `reads` that the stage may not read, since they do not change its
            result.
        checkpoint_keys: Per input stage, the recipe keys that may name another checkpoint in place
            of the run's own; the first one that is not null counts.
        main_process_only: Whether process 0 runs it alone while the others wait.
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
    checkpoint_keys: tuple[tuple[str, tuple[str, ...]], ...] = ()
    main_process_only: bool = False


# Keys are declared without conditions, although some are read only under others (PPO-ptx,
# held-out evaluations): a needless re-run in rare cases is better than a stale result.
_BASE = ("seed", "model", "lora")
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
    reads=(*_BASE, "sft", "generation.stop_tokens", "data.demonstrations", "data.bad_rows"),
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
        *(*_BASE, "reward_model", "generation"),
        *("data.comparisons", "data.prompts", "data.bad_rows"),
        # Gold comparisons are taken from prompts that no stage trains on.
        "data.demonstrations.held_out",
        # Score normalization samples the SFT policy in PPO's batches.
        *("ppo.rollout_batch_size", "ppo.forward_batch_size"),
    ),
    checkpoint_keys=(("sft", ("reward_model.sft",)),),
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
        *(*_BASE, "ppo", "generation"),
        # Held-out prompts are those that no stage trains on, hence all three data sets.
        "data",
        # Demonstrations of PPO-ptx are cut as SFT's are.
        "sft.max_length",
        # Held-out evaluations avoid the evaluation's prompts and share its reward model.
        *("evaluation.num_prompts", "evaluation.judge_rm"),
    ),
    checkpoint_keys=(("sft", ("ppo.sft",)), ("rm", ("ppo.rm",))),
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
        *("sft.max_length", "reward_model.max_length"),
        "reward_model.per_device_eval_batch_size",
    ),
    excludes=("evaluation.gates",),
    # By default, what PPO was given is what it is evaluated with.
    checkpoint_keys=(
        ("sft", ("evaluation.sft", "ppo.sft")),
        ("rm", ("evaluation.rm", "ppo.rm")),
        ("ppo", ("evaluation.ppo",)),
    ),
    main_process_only=True,
)

STAGES = (SFT, REWARD_MODEL, PPO, EVALUATION)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


def stage_named(name: str) -> Stage:
    """Return the stage of a name.

    Raises:
        KeyError: There is none.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise KeyError(name)
