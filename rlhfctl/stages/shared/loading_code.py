"""Python code that loads a checkpoint and uses it, for model cards; it runs as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhfctl.models.base import load_config
from rlhfctl.models.hub import model_source, runs_remote_code
from rlhfctl.models.scorer import scorer_class
from rlhfctl.recipe.template_date import without_date

if TYPE_CHECKING:
    from rlhfctl.recipe.schema import ModelSection
    from rlhfctl.stages.shared.stage_context import StageContext

_QUESTION = "What is the capital of France?"
_ANSWER = "Paris."


@dataclass(frozen=True)
class Loading:
    """Form of a checkpoint.

    Attributes:
        scores: A sequence classifier rather than a language model.
        adapter: An adapter rather than a whole model.
        folder: Folder or Hub id that the code loads; "." is the folder that it runs in.
        max_new_tokens: Longest response, in tokens.
        temperature: Divisor of the logits.
        base: Hub id of a base in a local folder; None: the recipe's name for it.
    """

    scores: bool
    adapter: bool
    folder: str = "."
    max_new_tokens: int = 64
    temperature: float = 1.0
    base: str | None = None


def loading_code(context: StageContext, form: Loading) -> str:
    """Return a program that loads the checkpoint and prints one response or score.

    Args:
        context: Recipe, tokenizer and stop tokens of the run.
        form: Form of the checkpoint.
    """
    section = context.recipe.model
    own = not form.scores or is_in_transformers(section)
    automatic = "AutoModelForSequenceClassification" if form.scores else "AutoModelForCausalLM"
    embedded = form.adapter and section.name_or_path == "embedded" and form.base is None
    lines = [
        *(["import torch"] if form.scores else []),
        *(["from peft import PeftModel"] if form.adapter else []),
        f"from transformers import {f'{automatic}, ' if own else ''}AutoTokenizer",
        *(["from rlhfctl.models.scorer import scorer_class"] if not own else []),
        *(["from rlhfctl.world.model import embedded_path"] if embedded else []),
        "",
        f"folder = {_quoted(form.folder)}",
        *([_base(section, form)] if form.adapter else []),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *_model(context, form, automatic if own else ""),
        *_input(context, form),
        *(_SCORE if form.scores else _response(context, form)),
    ]
    return "\n".join(lines)


def is_in_transformers(section: ModelSection) -> bool:
    """Return whether transformers has a sequence classifier with the weights of rlhfctl's."""
    config = load_config(section, model_source(section))
    scorer = scorer_class(config, trust_remote_code=runs_remote_code(section))
    return bool(scorer.has_own_class)


_SCORE = [
    "with torch.no_grad():",
    "    print(model(**inputs).logits[0, 0].item())",
]


def _base(section: ModelSection, form: Loading) -> str:
    if section.name_or_path == "embedded" and form.base is None:
        return "base = str(embedded_path())"
    return f"base = {_quoted(form.base or section.name_or_path)}"


def _quoted(text: str) -> str:
    """Return a text as a literal of Python in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _model(context: StageContext, form: Loading, automatic: str) -> list[str]:
    """Return the lines that load the model.

    Args:
        context: Recipe and pad tokens.
        form: Form of the checkpoint.
        automatic: Class of transformers; empty if only rlhfctl has one.
    """
    section = context.recipe.model
    source = "base" if form.adapter else "folder"
    loader = automatic or f"scorer_class({source})"
    extra = f", revision={_quoted(section.revision)}" if form.adapter and section.revision else ""
    if section.trust_remote_code:
        extra += ", trust_remote_code=True"
    if form.scores and form.adapter:
        extra += f", num_labels=1, pad_token_id={context.padding.token_id}"
    elif form.scores and context.padding.is_shared:
        extra += f", pad_token_id={context.padding.token_id}"
    vocabulary = max(context.tokenizer.get_vocab().values()) + 1
    return [
        f"model = {loader}.from_pretrained({source}{extra})",
        *(
            [f"model.resize_token_embeddings({vocabulary}, mean_resizing=False)"]
            if form.adapter and section.resize_embeddings
            else []
        ),
        *(["model = PeftModel.from_pretrained(model, folder)"] if form.adapter else []),
        "model.eval()",
    ]


def _input(context: StageContext, form: Loading) -> list[str]:
    if context.tokenizer.chat_template is None:
        text = f"{_QUESTION} {_ANSWER}" if form.scores else _QUESTION
        end = " + tokenizer.eos_token" if form.scores else ""
        return [f'inputs = tokenizer({_quoted(text)}{end}, return_tensors="pt")']
    variables = without_date(context.recipe.model.chat_template_kwargs)
    turns = [f'{{"role": "user", "content": {_quoted(_QUESTION)}}}']
    if form.scores:
        turns.append(f'{{"role": "assistant", "content": {_quoted(_ANSWER)}}}')
    return [
        "messages = [",
        *(f"    {turn}," for turn in turns),
        "]",
        "inputs = tokenizer.apply_chat_template(",
        (
            f"    messages, add_generation_prompt={not form.scores}, return_dict=True, "
            'return_tensors="pt",'
        ),
        *([f"    **{dict(variables)!r},"] if variables else []),
        ")",
    ]


def _response(context: StageContext, form: Loading) -> list[str]:
    return [
        "output = model.generate(",
        (
            f"    **inputs, max_new_tokens={form.max_new_tokens}, do_sample=True, "
            f"temperature={form.temperature}, top_k=0, top_p=1.0,"
        ),
        f"    eos_token_id={list(context.stop_token_ids)},",
        ")",
        'response = output[0, inputs["input_ids"].shape[1] :]',
        "print(tokenizer.decode(response, skip_special_tokens=True))",
    ]
