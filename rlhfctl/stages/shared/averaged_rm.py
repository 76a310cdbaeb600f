"""The reward model of `reward_rule: weight_average`: made once per stage, as a checkpoint of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rlhfctl.errors import CheckpointError
from rlhfctl.models.adapters import check_rank
from rlhfctl.models.averaging import average_reward_models
from rlhfctl.models.foreign_files import is_foreign
from rlhfctl.models.provenance import Provenance, check_fits, check_tokens
from rlhfctl.models.scan import scan_folder
from rlhfctl.run.directory import AVERAGED_MARKER_FILE, AVERAGED_RM_FOLDER
from rlhfctl.run.files import digest
from rlhfctl.run.sealed import read_sealed, write_sealed
from rlhfctl.stages.shared.score_normalization import normalize_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rlhfctl.ppo.processes import Processes
    from rlhfctl.recipe.ppo import PPOSection
    from rlhfctl.run.monitor import Monitor
    from rlhfctl.stages.shared.stage_context import StageContext


def averages(section: PPOSection) -> bool:
    """Return whether the recipe's rule averages the weights of its reward models."""
    return section.reward_rule == "weight_average"


def is_average(folder: Path) -> bool:
    """Return whether a folder has the average of several reward models."""
    return (folder / AVERAGED_MARKER_FILE).is_file()


def with_average(
    context: StageContext,
    inputs: Mapping[str, Path],
    output: Path,
    monitor: Monitor,
    processes: Processes | None = None,
) -> Mapping[str, Path]:
    """Return a stage's inputs with the average in place of `rm`, where the recipe asks for it.

    Args:
        context: Tokenizer and recipe.
        inputs: `sft`; `rm` where it exists.
        output: Folder of the stage; the average becomes a folder in it, which a resumed run uses
            again. That of PPO is used by the evaluation.
        monitor: Receives a note.
        processes: Processes of the stage; the first one makes it. None: only this one.

    Raises:
        CheckpointError: A reward model is not of `train-rm`, or does not fit the others.
    """
    if not averages(context.recipe.ppo) or "rm" not in inputs:
        return inputs
    members = _members(context.recipe.ppo, inputs["rm"])
    digests = {"members": [digest(folder) for folder in members]}
    made = [folder / AVERAGED_RM_FOLDER for folder in (output, inputs.get("ppo")) if folder]
    whole = [f for f in made if read_sealed(f / AVERAGED_MARKER_FILE) == digests]
    if processes is not None:
        processes.wait()  # until all have looked, so that all find the same
    if not whole and (processes is None or processes.is_main):
        _make(context, inputs["sft"], members, made[0], monitor)
        write_sealed(made[0] / AVERAGED_MARKER_FILE, digests)
    if processes is not None:
        processes.wait()
    return {**inputs, "rm": whole[0] if whole else made[0]}


def _members(section: PPOSection, rm: Path) -> list[Path]:
    """Return the folders of the reward models, in recipe order.

    Raises:
        CheckpointError: A folder does not exist, or is not of `train-rm`.
    """
    members = [
        rm if source.kind == "rm" else Path(source.source).expanduser()
        for source in section.reward_sources
    ]
    for member in members:
        if not member.is_dir() or is_foreign(str(member)):
            raise CheckpointError(
                "weight_average needs folders of reward models that rlhfctl train-rm wrote",
                f"ppo.reward_sources: {member}",
                "Name such folders, trained from the same SFT checkpoint, or use another "
                "reward_rule.",
            )
    return members


def _make(
    context: StageContext, sft: Path, members: Sequence[Path], folder: Path, monitor: Monitor
) -> None:
    """Write the average with the tokenizer, provenance and scale of a reward model."""
    recipe = context.recipe
    first = Provenance.load(members[0])
    for member in members:
        scan_folder(member, remote_code=recipe.model.trust_remote_code)
        check_tokens(
            member, context.tokenizer, context.stop_token_ids, recipe.model.chat_template_kwargs
        )
        if recipe.lora is not None:
            check_rank(member, recipe.lora)
        if first is not None:
            check_fits(member, first)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    average_reward_models(members, folder, recipe.model, context.tokenizer.pad_token_id)
    context.save_tokenizer(folder)
    if first is not None:
        first.save(folder)
    scale = normalize_scores(context, sft, [folder], monitor).normalizations[0]
    monitor.note(
        f"Reward: the averaged weights of {len(members)} reward models, {folder}; raw scores of "
        f"SFT's responses {scale.mean:.3g} +- {scale.deviation:.3g}"
    )
