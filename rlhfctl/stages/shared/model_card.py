"""The model card that lies in every checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhfctl import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rlhfctl.recipe.schema import Recipe

_TITLES = {
    "sft": "Supervised fine-tuning",
    "rm": "Reward model",
    "ppo": "PPO policy",
}
_LOADING = {
    "CAUSAL_LM": "AutoModelForCausalLM.from_pretrained(base)",
    "SEQ_CLS": "AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)",
}


def write_model_card(
    folder: Path, stage: str, recipe: Recipe, task_type: str, metrics: Mapping[str, Any]
) -> None:
    """Write README.md with what the checkpoint is, how to load it, and its metrics.

    Args:
        folder: The checkpoint.
        stage: sft, rm or ppo.
        recipe: It was made with.
        task_type: CAUSAL_LM or SEQ_CLS.
        metrics: Of the stage; numbers are listed, the rest is left out.
    """
    adapter = recipe.lora is not None
    rows = "\n".join(
        f"| {name} | {value:.6g} |"
        for name, value in metrics.items()
        if isinstance(value, int | float)
    )
    load = _LOADING[task_type]
    made = (
        f"Made by rlhfctl {__version__} on the base `{recipe.model.name_or_path}`, "
        f"seed {recipe.seed}."
    )
    lines = [
        "---",
        "library_name: peft" if adapter else "library_name: transformers",
        f"tags: [rlhfctl, {stage}{', lora' if adapter else ''}]",
        "---",
        f"# {_TITLES[stage]} of {recipe.model.name_or_path}",
        "",
        made,
        "",
        "```python",
        f"model = {load}" if adapter else f"model = {load.replace('base', 'folder')}",
        *(["model = PeftModel.from_pretrained(model, folder)"] if adapter else []),
        "```",
        "",
        "| metric | value |",
        "|---|---|",
        rows,
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
