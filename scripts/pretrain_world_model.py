"""Pretrain the embedded world's model from nothing, on the world's own text, on a CPU.

    python scripts/pretrain_world_model.py --seed 0 --output /tmp/world-model

Writes an ordinary checkpoint (config, weights, tokenizer) and pretraining.json: seed, loss curve,
held-out accuracy of answers and of verdicts by kind, versions and time. With --start it goes on
from such a folder, whose record is kept under "earlier".

The shipped model came about in several such legs while the world's text was still being shaped;
its record lists them all. Two things were learnt on the way: with batches as small as these, Muon
at its customary rate of 0.02 learns next to nothing beyond phrases, while 0.006 works; and a model
of this size does not come to tell whose value is asked for, so that prompts do not ask it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
import torch
import transformers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rlhfctl.world.documents import ASSISTANT, END, USER, Document, sample_documents
from rlhfctl.world.gold import gold_features
from rlhfctl.world.questions import KINDS, sample_question
from rlhfctl.world.responses import Style, render
from rlhfctl.world.streams import stream
from rlhfctl.world.tokenizer import MAX_LENGTH, build_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

POOL = 4096
# Copying is learnt first: the answers to most questions are words of the prompt.
ECHOES_FIRST, ECHOES_LATER = 0.7, 0.03


# Weights in the loss. The focused course attends to what can be foreseen: little of a prompt's
# random facts, much of a verdict, and answers more than the phrases around them.
WEIGHTS = {
    "plain": {"prompt": 1.0, "concise": 1.0, "phrased": 1.0, "verdict": 1.0, "read": 0.0},
    "focused": {"prompt": 0.1, "concise": 1.0, "phrased": 0.5, "verdict": 3.0, "read": 0.0},
}


@dataclass(frozen=True)
class Settings:
    steps: int
    seed: int
    batch_tokens: int
    learning_rate: float
    warmup: int
    muon_rate: float
    save_every: int
    course: str
    echo_pools: int
    start: Path | None
    output: Path


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    return model


def encode(
    tokenizer: PreTrainedTokenizerFast, documents: list[Document], course: str
) -> list[tuple[list[int], list[float]]]:
    """Token ids of each document and their weights in the loss."""
    texts = [segment.text for document in documents for segment in document]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    rows = []
    for document in documents:
        ids: list[int] = []
        weights: list[float] = []
        for segment in document:
            part = next(encoded)
            ids += part
            weights += [WEIGHTS[course][segment.role]] * len(part)
        rows.append((ids, weights))
    return rows


def batches(
    tokenizer: PreTrainedTokenizerFast, settings: Settings
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of ids and loss weights: documents of like length, padded on the right.

    Documents stand alone in their rows, so nothing is read across them.
    """
    rng = stream("pretraining", settings.seed)
    pad = tokenizer.pad_token_id
    for pool in itertools.count():
        echoes = ECHOES_FIRST if pool < settings.echo_pools else ECHOES_LATER
        documents = [one for _ in range(POOL) for one in sample_documents(rng, echoes)]
        rows = encode(tokenizer, documents, settings.course)
        rows.sort(key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > settings.batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            width = len(group[-1][0])
            ids = [row[0] + [pad] * (width - len(row[0])) for row in group]
            weights = [row[1] + [0.0] * (width - len(row[1])) for row in group]
            yield torch.tensor(ids), torch.tensor(weights)


def learning_rate_factor(step: int, settings: Settings) -> float:
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def loss_of(model: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean next-token loss; causal attention never sees the padding on the right."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    kept = weights[:, 1:] > 0
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[kept]), ids[:, 1:][kept], reduction="none"
    )
    chosen = weights[:, 1:][kept]
    return (losses * chosen).sum() / chosen.sum()


def make_optimizers(model: LlamaForCausalLM, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (Jordan et al. 2024), AdamW for embeddings and norms."""
    hidden = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(hidden, lr=settings.muon_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(
            rest, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        ),
    ]


@torch.no_grad()
def complete(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]
) -> list[str]:
    """Greedy completions of texts that end where the model is to go on."""
    model.eval()
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=48,
        do_sample=False,
    )
    model.train()
    new = output[:, inputs["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(new, skip_special_tokens=True))


def accuracy_by_kind(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: int, seed: int
) -> dict[str, dict[str, float]]:
    """Held-out share of wholly right answers, and of right verdicts on right and wrong responses."""
    rng = stream("held-out", seed)
    answers: dict[str, float] = {}
    verdicts: dict[str, float] = {}
    for kind in KINDS:
        questions = [sample_question(rng, kind) for _ in range(rows)]
        asked = [USER + question.prompt + END + ASSISTANT for question in questions]
        told = complete(model, tokenizer, asked)
        right = [
            gold_features(question.prompt, response).correctness == 1.0
            for question, response in zip(questions, told, strict=True)
        ]
        answers[kind] = sum(right) / rows
        shown = [
            render(question, Style("right" if row % 2 else "wrong"), rng)
            for row, question in enumerate(questions)
        ]
        answered = [prefix + response + END for prefix, response in zip(asked, shown, strict=True)]
        judged = complete(model, tokenizer, answered)
        verdicts[kind] = sum(
            text.startswith("Yes" if row % 2 else "No") for row, text in enumerate(judged)
        ) / len(judged)
    return {
        "answers": answers | {"mean": sum(answers.values()) / len(answers)},
        "verdicts": verdicts | {"mean": sum(verdicts.values()) / len(verdicts)},
    }


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    record: dict[str, object],
    output: Path,
) -> None:
    """Write the checkpoint beside its place and move it there file by file."""
    fresh = output.with_name(output.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    build_tokenizer().save_pretrained(fresh)
    text = json.dumps(record, indent=1) + "\n"
    (fresh / "pretraining.json").write_text(text, encoding="utf-8")
    output.mkdir(parents=True, exist_ok=True)
    for file in fresh.iterdir():
        file.replace(output / file.name)
    fresh.rmdir()


def begin(
    tokenizer: PreTrainedTokenizerFast, settings: Settings
) -> tuple[LlamaForCausalLM, list[dict[str, object]]]:
    """A fresh model, or the one to go on from with the records of how it came about."""
    if settings.start is None:
        return build_model(tokenizer, settings.seed), []
    record = json.loads((settings.start / "pretraining.json").read_text(encoding="utf-8"))
    earlier = [*record.pop("earlier", []), record]
    model = LlamaForCausalLM.from_pretrained(settings.start).train()
    return with_vocabulary(model, AutoTokenizer.from_pretrained(settings.start), tokenizer), earlier


def with_vocabulary(
    model: LlamaForCausalLM, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """The model with the new tokenizer's words: known ones keep their embeddings."""
    known = old.get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(len(new))
    after = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, place in new.get_vocab().items():
            after[place] = (
                before[known[token]] if token in known else torch.randn(after.shape[1]) * 0.05
            )
    return model


def pretrain(settings: Settings) -> None:
    tokenizer = build_tokenizer()
    model, earlier = begin(tokenizer, settings)
    optimizers = make_optimizers(model, settings)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, settings)
        )
        for optimizer in optimizers
    ]
    source = batches(tokenizer, settings)
    curve: list[dict[str, float]] = []
    tokens, started, window = 0, time.monotonic(), 0.0
    for step in range(1, settings.steps + 1):
        ids, weights = next(source)
        loss = loss_of(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel()
        window += loss.item()
        if step % 50 == 0:
            curve.append({"step": step, "tokens": tokens, "loss": round(window / 50, 4)})
            window = 0.0
            print(f"{time.monotonic() - started:7.0f} s {curve[-1]}", flush=True)
        last = step == settings.steps
        if last or step % settings.save_every == 0:
            held_out = accuracy_by_kind(model, tokenizer, 200 if last else 24, settings.seed)
            print(json.dumps(held_out), flush=True)
            record = {
                "earlier": earlier,
                "seed": settings.seed,
                "course": settings.course,
                "steps": step,
                "planned_steps": settings.steps,
                "tokens": tokens,
                "batch_tokens": settings.batch_tokens,
                "learning_rate": settings.learning_rate,
                "muon_rate": settings.muon_rate,
                "parameters": sum(p.numel() for p in model.parameters()),
                "loss_curve": curve,
                "held_out_accuracy": held_out,
                "seconds": round(time.monotonic() - started),
                "threads": torch.get_num_threads(),
                "versions": {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "tokenizers": tokenizers.__version__,
                },
            }
            save(model, tokenizer, record, settings.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=3072)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--muon-rate", type=float, default=0.006)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--course", choices=tuple(WEIGHTS), default="focused")
    parser.add_argument("--echo-pools", type=int, default=10)
    parser.add_argument("--start", type=Path, help="go on from this folder's model")
    parser.add_argument("--output", type=Path, default=Path("rlhfctl/world/assets"))
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    pretrain(Settings(**arguments))


if __name__ == "__main__":
    main()
