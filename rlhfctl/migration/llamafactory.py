"""LLaMA-Factory's keys that are read with others: stage, method, data and the folders of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfctl.migration.llamafactory_data import data_section
from rlhfctl.stage_table import PPO, REWARD_MODEL, SFT, stage_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.migration.outcomes import SourceFile
    from rlhfctl.stage_table import Stage

_HORIZON = 10_000
_FIRST_BETA = 0.2
"""TRL 0.9's defaults of its adaptive controller, which LLaMA-Factory gives no keys for."""


def stage_of(values: Mapping[str, object]) -> Stage:
    """Return the stage that a file configures; other stages have been refused."""
    return stage_named(str(values.get("stage") or SFT.name))


def complete(source: SourceFile, sources: Sequence[SourceFile]) -> None:
    """Set what the keys that are read with others say.

    Args:
        source: The file.
        sources: All files, for the folders of their results.

    Raises:
        DataError: A data set cannot be resolved.
    """
    values: Mapping[str, Any] = source.values
    if values.get("finetuning_type") == "full":
        _train_all_weights(source)
    elif values.get("lora_alpha") is None:
        rank = source.settings["lora.r"].value
        if isinstance(rank, int):
            source.set("lora.alpha", 2 * rank, "lora_rank", is_default=True)
            source.record("lora_alpha", "default", targets=("lora.alpha",), value="2 x lora_rank")
    data_section(source)
    if source.stage == PPO:
        _complete_ppo(source)
    _link_folders(source, sources)


def _train_all_weights(source: SourceFile) -> None:
    for target in [target for target in source.settings if target.startswith("lora.")]:
        key = source.settings.pop(target).key
        source.outcomes = [one for one in source.outcomes if one.key != key]
        if key in source.values:
            source.record(key, "left_out", reason="finetuning_type full trains all weights")
    source.set("lora", None, "finetuning_type")


def _complete_ppo(source: SourceFile) -> None:
    values: Mapping[str, Any] = source.values
    minibatch = source.settings["ppo.minibatch_size"].value
    buffers = values.get("ppo_buffer_size") or 1
    if isinstance(minibatch, int) and isinstance(buffers, int):
        source.set("ppo.rollout_batch_size", minibatch * buffers, "ppo_buffer_size")
    for target, value in (("ppo.beta", _FIRST_BETA), ("ppo.kl_controller.horizon", _HORIZON)):
        source.set(target, value, "ppo_target", is_default=True)
    # TRL 0.9's AutoModelForCausalLMWithValueHead, its loss times the default of `ppo.vf_coef`.
    source.set("ppo.critic", "head", "stage", is_default=True)
    source.remark(
        "ppo_target",
        f"with TRL 0.9's first coefficient (ppo.beta {_FIRST_BETA}), meant for scores as they are; "
        "rlhfctl normalises scores to a standard deviation of 1",
    )
    source.remark(
        "gradient_accumulation_steps",
        "times the rows of a pass, of one process; ppo.minibatch_size and rollout_batch_size count "
        "all processes",
    )


def _link_folders(source: SourceFile, sources: Sequence[SourceFile]) -> None:
    """Record whether a folder of results is one that another file writes."""
    folders = {
        Path(str(other.values["output_dir"])): other.stage
        for other in sources
        if other.values.get("output_dir")
    }
    for key, producer in (("reward_model", REWARD_MODEL), ("adapter_name_or_path", SFT)):
        value = source.values.get(key)
        if not value or key not in source.values:
            continue
        if folders.get(Path(str(value))) == producer and source.stage != producer:
            source.remark(key, f"the run's own, of {producer.command}")
        elif key == "adapter_name_or_path" and source.stage == SFT and "," not in str(value):
            source.set("sft.init_from", value, key)
        else:
            _leave_out(source, key, producer)
    kind = source.values.get("reward_model_type")
    if kind == "api":
        source.outcomes = [one for one in source.outcomes if one.key != "reward_model_type"]
        source.record(
            "reward_model_type",
            "unsupported",
            reason="a server of rlhfctl has another protocol: see ppo.reward_sources",
        )
    elif kind:
        source.remark("reward_model_type", "the reward model has the recipe's adapters")


def _leave_out(source: SourceFile, key: str, producer: Stage) -> None:
    source.outcomes = [one for one in source.outcomes if one.key != key]
    source.record(
        key,
        "unsupported",
        reason="a checkpoint of LLaMA-Factory, which rlhfctl does not load; "
        f"{producer.command} makes the run's own",
    )
