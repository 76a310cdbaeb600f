"""The base and the trained models of a run: one base in memory with their adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl.errors import UsageError
from rlhfctl.maths.sampling import uniform_numbers
from rlhfctl.models import adapters, generation
from rlhfctl.models.device import device
from rlhfctl.models.merging import load_language_model
from rlhfctl.models.precision import autocast, whole_weights_dtype
from rlhfctl.models.provenance import check_fits, check_tokens
from rlhfctl.models.role_models import BASE, AdapterRoleModels, RoleFolders
from rlhfctl.models.scan import scan_folder
from rlhfctl.sampling.settings import Response
from rlhfctl.stages.shared.stage_context import open_stage_context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rlhfctl.pipeline.finished import FinishedRun
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.sampling.settings import SamplingSettings
    from rlhfctl.stages.shared.stage_context import StageContext

_ROLES = ("reference", "policy")
"""Roles that hold a language model's adapter, in the order in which they are filled."""


class StageModels:
    """Models of some stages of a run that respond to the same prompts.

    Args:
        run: The run.
        stages: `base`, `sft`, `ppo` or `dpo`, each once; at most two of them adapters.
        best: PPO's best policy on held-out prompts rather than its last.

    Raises:
        CheckpointError: A stage is not finished, or its base is another one.
        UsageError: There are more than two adapters.
    """

    def __init__(self, run: FinishedRun, stages: Sequence[str], *, best: bool = False) -> None:
        trained = [stage for stage in stages if stage != BASE]
        recipe = run.recipe_of(trained[-1]) if trained else _recipe_of_base(run)
        self.context = open_stage_context(recipe)
        self.stages = tuple(stages)
        folders = {stage: run.checkpoint(stage, best=best and stage == "ppo") for stage in trained}
        self._check(folders)
        self._adapters: AdapterRoleModels | None = None
        self._roles: dict[str, str] = {}
        self._models: dict[str, Any] = {}
        if folders and all(adapters.is_adapter(folder) for folder in folders.values()):
            self._load_adapters(folders)
        else:
            self._load_whole(folders)

    def _load_adapters(self, folders: Mapping[str, Path]) -> None:
        paths = list(folders.values())
        if len(paths) > len(_ROLES):
            raise UsageError(
                f"{', '.join(folders)} are more than two adapters at a time",
                "--stage",
                "name two of them",
            )
        self._roles = {BASE: BASE} | dict(zip(folders, _ROLES, strict=False))
        self._adapters = AdapterRoleModels(
            self.context.recipe.model,
            RoleFolders(paths[0], policy=paths[1] if len(paths) > 1 else None),
        )
        base = self._adapters.language_model(BASE)
        for folder in paths:
            check_fits(folder, self.context.provenance("ppo", base))

    def _load_whole(self, folders: Mapping[str, Path]) -> None:
        section = self.context.recipe.model
        for stage in self.stages:
            model = load_language_model(section, folders.get(stage))
            self._models[stage] = model.float() if stage in folders else model

    def _check(self, folders: Mapping[str, Path]) -> None:
        recipe = self.context.recipe
        for folder in folders.values():
            scan_folder(folder, remote_code=recipe.model.trust_remote_code)
            check_tokens(
                folder,
                self.context.tokenizer,
                self.context.stop_token_ids,
                recipe.model.chat_template_kwargs,
            )

    @property
    def longest_input(self) -> int | None:
        """Longest sequence that the base takes, in tokens; None if its config does not say."""
        stage = self.stages[0]
        model = self._adapters.language_model(BASE) if self._adapters else self._models[stage]
        limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return limit

    def respond(
        self, stage: str, prompts: Sequence[Sequence[int]], settings: SamplingSettings
    ) -> list[Response]:
        """Return one response per prompt; each depends on its own prompt and number only.

        Args:
            stage: One of `stages`.
            prompts: Token ids.
            settings: Settings of generation.
        """
        context = self.context
        model, dtype = self._model(stage)
        seeds = [(settings.seed, number) for number in range(len(prompts))]
        rows = uniform_numbers(seeds, settings.max_new_tokens).to(device())
        with autocast(device(), dtype):
            responses = generation.generate(
                model,
                prompts,
                rows,
                temperature=settings.temperature,
                vocabulary=_vocabulary(context, model),
                stop_token_ids=context.stop_token_ids,
                pad_token_id=context.padding.token_id,
            )
        stops = set(context.stop_token_ids)
        return [
            Response(context.formatter.decode(ids), len(ids), ids[-1] in stops) for ids in responses
        ]

    def _model(self, stage: str) -> tuple[Any, Any]:
        """Return the model of a stage, ready to generate, and the dtype to compute in, if any."""
        if self._adapters is None:
            whole = self.context.recipe.lora is None and stage != BASE
            dtype = whole_weights_dtype(self.context.recipe.model) if whole else None
            return self._models[stage], dtype
        role = self._roles[stage]
        self._adapters.activate(role, training=False).eval()
        return self._adapters.language_model(role), None


def _recipe_of_base(run: FinishedRun) -> Recipe:
    """Return the recipe of the newest finished stage, else that of the run folder."""
    stages = [stage for stage in run.stages if stage != "rm"]
    return run.recipe_of(stages[-1]) if stages else run.recipe


def _vocabulary(context: StageContext, model: Any) -> int:
    largest: int = max(context.tokenizer.get_vocab().values())
    return min(largest + 1, int(model.get_output_embeddings().weight.shape[0]))
