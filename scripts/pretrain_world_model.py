"""Pretrain the embedded world's model from scratch on the world's text, on a CPU.

    python scripts/pretrain_world_model.py --seed 0 --output /tmp/world-model

Writes an ordinary checkpoint (config, weights, tokenizer) and pretraining.json: seed, loss curve,
held-out accuracy of answers and of verdicts by kind, versions and time. With --start, training
resumes from such a folder, and its record is stored under "earlier".

The shipped model was trained in several such steps while the world's text was being developed; its
record lists them all. Two findings: with batches this small, Muon at its usual rate of 0.02 learns
little beyond phrases, while 0.006 works. A model of this size does not learn to identify whose value
is asked for, so prompts do not require it.
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
# Copying is trained first: the answers to most questions are words of the prompt.
ECHOES_FIRST, ECHOES_LATER = 0.7, 0.03


# Weights in the loss. The focused course emphasises predictable text: a low weight for the random
# facts of a prompt, a high one for verdicts, and more for answers than for phrases around them.
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
    """Infinite batches of ids and loss weights: documents of similar length, padded on the right.

    Each row has one document, so there is no attention across documents.
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
    has_loss = weights[:, 1:] > 0
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden[has_loss]), ids[:, 1:][has_loss], reduction="none"
    )
    chosen = weights[:, 1:][has_loss]
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
    """Greedy completions of the prompts, without special tokens."""
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
    """Held-out share of fully right answers, and of right verdicts on right and wrong responses."""
    rng = stream("held-out", seed)
    answers: dict[str, float] = {}
    verdicts: dict[str, float] = {}
    for kind in KINDS:
        questions = [sample_question(rng, kind) for _ in range(rows)]
        prompts = [USER + question.prompt + END + ASSISTANT for question in questions]
        responses = complete(model, tokenizer, prompts)
        right = [
            gold_features(question.prompt, response).correctness == 1.0
            for question, response in zip(questions, responses, strict=True)
        ]
        answers[kind] = sum(right) / rows
        shown = [
            render(question, Style("right" if row % 2 else "wrong"), rng)
            for row, question in enumerate(questions)
        ]
        answered = [
            prefix + response + END for prefix, response in zip(prompts, shown, strict=True)
        ]
        verdict_texts = complete(model, tokenizer, answered)
        verdicts[kind] = sum(
            text.startswith("Yes" if row % 2 else "No") for row, text in enumerate(verdict_texts)
        ) / len(verdict_texts)
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
    """Write the checkpoint to a temporary folder and move its files to the output folder."""
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
    """A new model, or the model to resume from with the records of earlier trainings."""
    if settings.start is None:
        return build_model(tokenizer, settings.seed), []
    record = json.loads((settings.start / "pretraining.json").read_text(encoding="utf-8"))
    earlier = [*record.pop("earlier", []), record]
    model = LlamaForCausalLM.from_pretrained(settings.start).train()
    return with_vocabulary(model, AutoTokenizer.from_pretrained(settings.start), tokenizer), earlier


def with_vocabulary(
    model: LlamaForCausalLM, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """Resize the vocabulary to the new tokenizer's; shared words keep their embeddings."""
    old_vocabulary = old.get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(len(new))
    after = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, place in new.get_vocab().items():
            after[place] = (
                before[old_vocabulary[token]]
                if token in old_vocabulary
                else torch.randn(after.shape[1]) * 0.05
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
    parser.add_argument("--start", type=Path, help="resume from the model in this folder")
    parser.add_argument("--output", type=Path, default=Path("rlhfctl/world/assets"))
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    pretrain(Settings(**arguments))


if __name__ == "__main__":
    main()
