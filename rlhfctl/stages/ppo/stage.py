"""PPO against the reward model, with policy, reference, reward and critic on one base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch

from rlhfctl.data.formatting import encode_demonstrations, encode_prompts
from rlhfctl.data.row_counts import bad_limit
from rlhfctl.data.sources import load_demonstrations, load_prompts
from rlhfctl.errors import GateError
from rlhfctl.json_text import parse_json
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models import sharding
from rlhfctl.models.device import effective_dtype, effective_quantization
from rlhfctl.ppo.processes import Processes
from rlhfctl.ppo.settings import PPOSettings
from rlhfctl.ppo.trainer import PPOTrainer
from rlhfctl.results.io import to_json
from rlhfctl.results.samples import TrainingSample
from rlhfctl.results.training import AlarmAct, PPOResult
from rlhfctl.run import stop
from rlhfctl.run.directory import BEST_MARKER_FILE, CRITIC_FOLDER, SAMPLES_FILE
from rlhfctl.run.files import CHECKPOINTS, write_atomic
from rlhfctl.run.manifest import StageOutcome
from rlhfctl.stages.ppo.diverged import diverged_batch_saved
from rlhfctl.stages.ppo.held_out_evaluation import HeldOutEvaluator
from rlhfctl.stages.ppo.held_out_set import held_out_prompts, open_held_out_set
from rlhfctl.stages.ppo.start_checks import (
    Check,
    check_accuracy,
    check_ending,
    check_reload,
    check_start,
)
from rlhfctl.stages.ppo.vllm_engine import VLLMEngine, require_one_process
from rlhfctl.stages.shared.averaged_rm import averages, with_average
from rlhfctl.stages.shared.foreign_rewards import (
    measure_scales,
    read_scales,
    report_truncation,
    save_scales,
)
from rlhfctl.stages.shared.held_out_rm import held_out_rm_folder
from rlhfctl.stages.shared.model_card import write_model_card
from rlhfctl.stages.shared.reward_sources import RewardSources, extra_reward_models
from rlhfctl.stages.shared.stage_context import (
    StageContext,
    open_roles,
    open_stage_context,
    report_rows,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.data.row_counts import RowCounts
    from rlhfctl.models.roles import Roles
    from rlhfctl.ppo.checkpoint import Progress
    from rlhfctl.ppo.rollout import Rollout
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.results.training import BestEvaluation
    from rlhfctl.run.monitor import Monitor

SAMPLES_PER_ROLLOUT = 8
_ENGINE_KEYS = ("max_mismatch", "importance_sampling_clip_max")
"""Settings in `ppo.vllm`."""


def ppo_settings(recipe: Recipe) -> PPOSettings:
    """Return the numbers of the recipe's `ppo` section, with the recipe's seed."""
    section = recipe.ppo
    controller = section.kl_controller
    named = {
        name: getattr(section, name)
        for name in PPOSettings.__dataclass_fields__
        if name
        not in {
            "kl_target",
            "kl_horizon",
            "seed",
            "auto_batch",
            "sampling_batch_size",
            *_ENGINE_KEYS,
        }
    }
    named |= {name: getattr(section.vllm, name) for name in _ENGINE_KEYS}
    return PPOSettings(
        **named,
        kl_target=controller.target if controller else None,
        kl_horizon=controller.horizon if controller else 1.0,
        seed=recipe.seed,
        sampling_batch_size=recipe.generation.batch_size,
        auto_batch=recipe.auto_batch,
    )


def run(recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor) -> StageOutcome:
    """Run the start checks and PPO; write policy, critic and samples.

    Args:
        recipe: `model`, `lora`, `data.prompts` and `ppo` are read; `data.demonstrations` for
            PPO-ptx.
        inputs: `sft`, and `rm` where the reward model is a source: their checkpoints.
        output: An empty folder.
        monitor: Receives metrics after every rollout.

    Raises:
        RecipeError: The base is to be sharded over the processes and cannot be.
        UsageError: The launcher asks for FSDP version 1.
        DataError: No usable prompts.
        CheckpointError: A checkpoint is damaged, or of another base, rank or tokenizer.
        GateError: A check before PPO failed and `ppo.gate` is `refuse`.
        DivergedError: Metrics are not finite, or KL overran `ppo.kl_stop`.
    """
    opened = open_trainer(recipe, inputs, output, monitor)
    serving = nullcontext() if opened.engine is None else opened.engine.running()
    with serving, stop.deferred(monitor.note):
        return _train(opened, recipe, output, monitor)


def _train(opened: PPOSetup, recipe: Recipe, output: Path, monitor: Monitor) -> StageOutcome:
    """Train and save; a stop within the last update takes effect when the result is saved."""
    trainer, context = opened.trainer, opened.context
    with diverged_batch_saved(trainer, context.formatter, output):
        last_rollout, evaluator = trainer.train(), opened.evaluator
    report_truncation(opened.sources.scorers, trainer.processes, monitor)
    # The run's total takes the place of the last rollout's count.
    last_rollout.pop("skipped_minibatches", None)
    if evaluator is not None and recipe.ppo.on_alarm != "warn":
        _note_acts(evaluator, trainer.progress, recipe.ppo.rollout_batch_size)
    result = PPOResult(
        rollouts=trainer.progress.rollout,
        episodes=trainer.progress.rollout * recipe.ppo.rollout_batch_size,
        skipped_minibatches=trainer.progress.skipped,
        kl_early_stops=trainer.progress.early_stops,
        pass_size=trainer.ppo_step.pass_size.rows if recipe.auto_batch else None,
        gate={check.name: check.detail for check in opened.checks},
        last_rollout=last_rollout,
        over_optimisation=evaluator.summary() if evaluator is not None else None,
        result=evaluator.result() if evaluator is not None else None,
    )
    if trainer.processes.is_main:
        _save(context, opened.roles, output)
        folder = evaluator.finish() if evaluator is not None else None
        summary = result.over_optimisation
        if evaluator and folder and summary and summary.best is not None:
            _complete_best(opened, output, folder, summary.best, returned=evaluator.returns_best)
        write_model_card(output, "ppo", context, "CAUSAL_LM", result)
    return StageOutcome(to_json(result), {"prompts": opened.counts.record()})


def _note_acts(evaluator: HeldOutEvaluator, progress: Progress, size: int) -> None:
    """Tell the evaluator what was done on alarms; a rollout has `size` episodes."""
    evaluator.restored = progress.alarms.restored_after(progress.rollout)
    evaluator.acts = [
        AlarmAct(
            kind=act.kind,
            alarms=list(act.alarms),
            step=act.step,
            beta_before=act.beta_before,
            beta=act.beta,
            restored_step=None if act.restored is None else act.restored * size,
        )
        for act in progress.alarms.acts
    ]


def _complete_best(
    opened: PPOSetup, output: Path, folder: Path, best: BestEvaluation, *, returned: bool
) -> None:
    """Complete the best policy's checkpoint; make it the result if it is to be `returned`."""
    context = opened.context
    if returned:
        opened.monitor.note(
            f"Result: the best checkpoint by the true reward, episode {best.step:,}"
        )
        shutil.copytree(
            folder, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(BEST_MARKER_FILE)
        )
    _describe(opened.context, opened.roles, folder)
    write_model_card(folder, "ppo", context, "CAUSAL_LM", best)


@dataclass(frozen=True)
class PPOSetup:
    """PPO ready to run.

    Attributes:
        context: Tokenizer and formatting.
        roles: Roles of the trainer.
        trainer: Trainer to run.
        prompts: Training prompts before encoding, text or messages.
        counts: Row counts of the prompts, for the manifest.
        sources: Reward sources.
        checks: Results of the start checks.
        evaluator: Held-out evaluator, if enabled.
        engine: vLLM, which must run while the trainer does; None: transformers samples.
        monitor: Receives metrics and messages.
    """

    context: StageContext
    roles: Roles
    trainer: PPOTrainer
    prompts: Sequence[Any]
    counts: RowCounts
    sources: RewardSources
    checks: list[Check]
    evaluator: HeldOutEvaluator | None
    engine: VLLMEngine | None
    monitor: Monitor


def open_trainer(
    recipe: Recipe, inputs: Mapping[str, Path], output: Path, monitor: Monitor
) -> PPOSetup:
    """Load roles, prompts and sources of scores, check them, and make the trainer of a recipe.

    Takes and raises what `run` does.
    """
    shard = sharding.is_requested(recipe)
    processes = Processes()
    context = open_stage_context(recipe, monitor)
    rows = load_prompts(recipe, monitor)
    encoded = encode_prompts(
        rows.train,
        context.formatter_for("prompts"),
        recipe.generation.max_prompt_length,
        bad_limit(recipe.data),
        monitor,
    )
    counts = report_rows(monitor, "prompts", rows.report, (encoded.report,))
    # Read from the memory-mapped rows as they are sampled.
    prompts: Sequence[list[int]] = encoded.dataset["input_ids"]

    section = recipe.ppo
    held_out = held_out_prompts(context, monitor) if section.eval_rollouts is not None else None
    sources = RewardSources.open(section)
    prompt_rows = sources.rows(recipe, encoded.dataset)
    judge = held_out_rm_folder(recipe, inputs) if held_out is not None else None
    models = {name: inputs[name] for name in ("sft", "rm") if name == "sft" or section.uses_rm}
    roles = open_roles(
        context,
        with_average(context, models, output, monitor, processes),
        [*extra_reward_models(section), *([judge] if judge else [])],
        section.critic_start,
        shard=shard,
        gradient_checkpointing=section.gradient_checkpointing,
    )
    settings = ppo_settings(recipe)
    engine = _engine(recipe, roles, output, monitor, processes)
    sources.load_scorers(prompt_rows)
    for note in sources.revisions():
        monitor.note(note)
    _measure_scales(context, roles, sources, output, processes, monitor)
    rewards = sources.over(roles, context.formatter, prompt_rows)
    checks = _preflight(recipe, inputs, roles, prompts, settings, monitor)

    def keep_samples(episodes: int, rollout: Rollout) -> None:
        _append_samples(context, episodes, rollout, output / SAMPLES_FILE)

    evaluator: HeldOutEvaluator | None = None
    if held_out is not None:
        held_out_set = open_held_out_set(context, inputs, roles, sources, held_out)
        save = roles.models.save_policy
        evaluator = HeldOutEvaluator(held_out_set, section, output, save, processes, monitor)
    trainer = PPOTrainer(
        roles,
        prompts,
        settings,
        monitor,
        keep_samples,
        output / CHECKPOINTS,
        rewards,
        _Demonstrations(context, monitor) if section.ptx_coefficient else (),
        processes,
        evaluator,
        engine,
    )
    if settings.auto_batch:
        trainer.ppo_step.try_longest(_longest(prompts, roles, settings.forward_batch_size))
    return PPOSetup(
        context,
        roles,
        trainer,
        encoded.dataset["prompt"],
        counts,
        sources,
        checks,
        evaluator,
        engine,
        monitor,
    )


def _engine(
    recipe: Recipe, roles: Roles, output: Path, monitor: Monitor, processes: Processes
) -> VLLMEngine | None:
    if recipe.ppo.engine == "transformers":
        return None
    require_one_process(processes)
    return VLLMEngine(recipe, roles, output, monitor)


def _longest(prompts: Sequence[Sequence[int]], roles: Roles, size: int) -> Sequences:
    """Return the longest prompts with responses of the greatest length."""
    longest = sorted(prompts, key=len, reverse=True)[:size]
    response = [roles.stop_token_ids[0]] * roles.max_new_tokens
    return Sequences.from_lists(
        longest, [response] * len(longest), roles.pad_token_id, roles.device
    )


def _measure_scales(
    context: StageContext,
    roles: Roles,
    sources: RewardSources,
    output: Path,
    processes: Processes,
    monitor: Monitor,
) -> None:
    """Measure the scale of each reward model from elsewhere; a resumed run keeps those it has."""
    scorers = sources.normalised_scorers()
    if not scorers:
        return
    scales = read_scales(output)
    if scales.keys() != scorers.keys():
        size = context.recipe.sampled_at_once
        scales = measure_scales(context, roles, scorers, size, monitor, processes)
    processes.wait()
    if processes.is_main:
        save_scales(scales, output)
    sources.scales.update(scales)


class _Demonstrations(Sequence[tuple[list[int], list[int]]]):
    """Prompt and response ids of the SFT stage's training rows, read as they are needed."""

    def __init__(self, context: StageContext, monitor: Monitor) -> None:
        recipe = context.recipe
        self._rows = encode_demonstrations(
            load_demonstrations(recipe, monitor).train,
            context.formatter_for("demonstrations"),
            recipe.sft.max_length,
            bad_limit(recipe.data),
            progress=monitor,
        ).dataset

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> tuple[list[int], list[int]]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[list[int], list[int]]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(len(self))[row]]
        values = self._rows[row]
        ids, start = values["input_ids"], values["completion_mask"].index(1)
        return ids[:start], ids[start:]


def _preflight(
    recipe: Recipe,
    inputs: Mapping[str, Path],
    roles: Roles,
    prompts: Sequence[list[int]],
    settings: PPOSettings,
    monitor: Monitor,
) -> list[Check]:
    exact = effective_quantization(recipe.model) == "none" and (
        effective_dtype(recipe.model) is torch.float32
    )
    checks = check_start(roles, prompts, recipe.seed, settings.trained)
    rm = inputs["rm"] if recipe.ppo.uses_rm else None
    if rm is not None:
        # The averaged model has no scores from training to compare with.
        reload = [] if averages(recipe.ppo) else [check_reload(rm, roles, exact=exact)]
        checks = [*check_accuracy(rm), *reload, *checks]
    checks.append(check_ending(roles, prompts, recipe.seed, rm))
    failed = [check for check in checks if not check.passed]
    refused = [str(check) for check in failed if not check.caution]
    if refused and recipe.ppo.gate == "refuse":
        raise GateError(
            "Preflight failed: " + "; ".join(refused),
            "before ppo",
            "Fix the reward model or the policy checkpoint, or continue with --set ppo.gate=warn.",
        )
    for check in failed:
        monitor.warn(f"Preflight: {check}")
    if not failed:
        monitor.note(f"Preflight: all {len(checks)} checks passed")
    return checks


def _append_samples(context: StageContext, episodes: int, rollout: Rollout, path: Path) -> None:
    """Append a few episodes to the samples; drop those that a resumed run repeats."""
    batch = rollout.sequences
    earlier = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [line for line in earlier if parse_json(line)["episode"] < episodes]
    for row in range(min(SAMPLES_PER_ROLLOUT, len(batch))):
        prompt, end = int(batch.prompt_lengths[row]), int(batch.last_positions[row]) + 1
        ids = batch.ids[row].tolist()
        sample = TrainingSample(
            episode=episodes,
            prompt=context.formatter.decode(ids[:prompt]),
            response=context.formatter.decode(ids[prompt:end]),
            score=float(rollout.model_scores[row]),
            kl=float(rollout.kl[row]),
            ended=bool(rollout.ended[row]),
        )
        lines.append(json.dumps(to_json(sample), ensure_ascii=False))
    write_atomic(path, "".join(f"{line}\n" for line in lines))


def _save(context: StageContext, roles: Roles, output: Path) -> None:
    roles.models.save_policy(output)
    if context.recipe.ppo.has_critic:
        critic = output / CRITIC_FOLDER
        critic.mkdir(exist_ok=True)
        roles.models.save_critic(critic)
    _describe(context, roles, output)


def _describe(context: StageContext, roles: Roles, output: Path) -> None:
    """Write the tokenizer and the provenance of the base."""
    context.save_tokenizer(output)
    context.provenance("ppo", roles.models.language_model("reference")).save(output)
