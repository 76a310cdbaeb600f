"""A run folder with random adapters on a tiny base, made without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from rlhfctl.models import adapters
from rlhfctl.models.heads import ScoreNormalization
from rlhfctl.models.merging import unquantised
from rlhfctl.models.scorer import load_scorer
from rlhfctl.recipe.schema import Recipe
from rlhfctl.recipe.view import stage_part
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison, EvaluationResult, PolicyMetrics
from rlhfctl.results.io import to_json
from rlhfctl.results.training import PPOResult, RewardModelResult, SFTResult
from rlhfctl.run.directory import METRICS_FILE, RunDirectory
from rlhfctl.run.files import write_json
from rlhfctl.run.manifest import Artifact, Manifest, StageRecord
from rlhfctl.stage_table import stage_named
from rlhfctl.stages.shared.stage_context import open_stage_context, save_trained
from rlhfctl.world.model import embedded_path
from tests.conftest import tiny_recipe

MEAN, DEVIATION = 0.25, 2.0
MAX_NEW_TOKENS = 8
RESULTS = {
    "sft": SFTResult(3.0, 1.5, 0.5, 0.7, 2.0, 8, 2, 2, 100, 1.0),
    "rm": RewardModelResult(
        accuracy=Estimate(0.8, 0.7, 0.9), length_accuracy=Estimate(0.5, 0.4, 0.6), pairs=50,
        mean_margin=1.0, score_min=-2.0, score_max=2.0, train_loss=0.5, train_rows=8, steps=2,
    ),
    "ppo": PPOResult(2, 32, 0, 0, {}, {}),
}  # fmt: skip


def code_of_card(folder: Path) -> str:
    """Return the code of a checkpoint's or export's model card."""
    return (folder / "README.md").read_text().split("```")[1].removeprefix("python")


def write_base(folder: Path) -> Path:
    """Write a random Llama of two layers with the embedded world's tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_path())
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.3,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_run(root: Path, base: Path, *overrides: str) -> Path:
    """Write a run whose stages are recorded as finished.

    Args:
        root: Run folder to create.
        base: Result of `write_base`.
        overrides: Recipe keys, such as ``model.quantization=4bit``.
    """
    recipe = tiny_recipe(
        f"name={root.name}", f"model.name_or_path={base}", "lora.r=4", "lora.alpha=8",
        f"generation.max_new_tokens={MAX_NEW_TOKENS}",
        *(f"data.{kind}.source=embedded" for kind in ("demonstrations", "comparisons", "prompts")),
        *overrides,
    )  # fmt: skip
    directory = RunDirectory(root)
    directory.create()
    directory.recipe.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    manifest = Manifest()
    for number, name in enumerate(("sft", "rm", "ppo")):
        _write_checkpoint(recipe, directory.stage(name), name, seed=number + 1)
        manifest = manifest.with_stage(_record(recipe, directory, name, to_json(RESULTS[name])))
    evaluation = directory.stage("eval")
    evaluation.mkdir()
    metrics = to_json(_evaluation())
    write_json(evaluation / METRICS_FILE, metrics)
    manifest = manifest.with_stage(_record(recipe, directory, "eval", metrics))
    manifest.save(directory.manifest)
    return root


def _write_checkpoint(recipe: Recipe, folder: Path, name: str, seed: int) -> None:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    # Adapters of a quantised run have the same form; they are made on the plain base.
    section = unquantised(recipe.model, "float32")
    context = open_stage_context(recipe.model_copy(update={"model": section}))
    assert recipe.lora is not None
    base: Any
    if name == "rm":
        base = load_scorer(section, context.padding.token_id)
        model = get_peft_model(base, adapters.new_config(recipe.lora, "SEQ_CLS", base.head_name))
    else:
        base = AutoModelForCausalLM.from_pretrained(section.name_or_path)
        model = get_peft_model(base, adapters.new_config(recipe.lora, "CAUSAL_LM"))
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_" in key or "modules_to_save" in key:
            torch.nn.init.normal_(parameter.data, std=0.3)
    save_trained(context, model, folder, name, "SEQ_CLS" if name == "rm" else "CAUSAL_LM")
    if name == "rm":
        ScoreNormalization(MEAN, DEVIATION, 32).save(folder)


def _record(
    recipe: Recipe, directory: RunDirectory, name: str, metrics: dict[str, Any]
) -> StageRecord:
    stage = stage_named(name)
    return StageRecord(
        stage=name,
        recipe_part=stage_part(recipe, stage),
        inputs={},
        outputs={name: Artifact.of(directory.stage(name), directory.root)},
        metrics=metrics,
        versions={},
        seed=recipe.seed,
        started="2026-11-01T00:00:00+00:00",
        seconds=1.0,
    )


def _evaluation() -> EvaluationResult:
    policy = PolicyMetrics(
        kl=Estimate(40.0, 38.0, 42.0), length=12.0, eos_share=1.0, repetition=0.0, distinct=0.5
    )
    rate = Estimate(0.75, 0.625, 0.875)
    return EvaluationResult(
        prompts=12,
        policies={"sft": policy, "ppo": policy},
        comparison=Comparison(win_rate=rate, judge="gold", gold_win_rate=rate, proxy_win_rate=rate),
    )
