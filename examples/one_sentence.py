"""A task for a small instruct model: answer in one sentence of 6 to 18 words.

`python examples/one_sentence.py MODEL FOLDER` writes demonstrations, comparisons and prompts. The
texts are the model's own answers, cut after a few words or after one to three sentences; which of two answers is better
is decided by the rule of this file alone. `rule` decides the same way for `evaluation.judge_function`,
so the evaluation does not depend on the reward model that PPO trained against.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SHORTEST, LONGEST = 6, 18
"""Bounds on the words of a good answer."""

TOPICS = """
    rain, snow, thunder, rainbows, the moon, the tides, gravity, magnets, electricity, batteries, glass,
    paper, steel, plastic, rubber, concrete, bread, cheese, butter, honey, chocolate, coffee, tea, salt,
    sugar, pepper, rice, potatoes, tomatoes, apples, bananas, lemons, mushrooms, beans, eggs, milk,
    cats, dogs, horses, cows, sheep, bees, ants, spiders, butterflies, owls, penguins, eagles, whales,
    sharks, dolphins, turtles, frogs, snakes, elephants, bears, wolves, foxes, rabbits, mice, forests,
    deserts, oceans, rivers, lakes, glaciers, volcanoes, earthquakes, islands, caves, bridges, tunnels,
    trains, bicycles, cars, aeroplanes, ships, submarines, rockets, satellites, telescopes, microscopes,
    clocks, maps, compasses, cameras, radios, telephones, computers, robots, the internet, libraries,
    museums, schools, hospitals, markets, money, banks, taxes, laws, elections, newspapers, books,
    poems, music, dancing, painting, theatre, films, football, tennis, swimming, chess, cooking,
    gardening, sleep, dreams, memory, laughter, friendship, vaccines, bones, muscles, the heart, the brain
"""
QUESTIONS = (
    "What should I know about {}?",
    "Tell me about {}.",
    "Explain {} to a child.",
    "Why should I care about {}?",
    "Give me an interesting fact about {}.",
    "What do people get wrong about {}?",
    "How would you describe {}?",
    "What is the history of {}?",
)
SIZES = {"demonstrations": 96, "comparisons": 288, "prompts": 400}
"""Rows of each file; no prompt is in two of them."""

SYSTEM = "Answer briefly."
"""Shorter than the system message that the model's template puts where there is none."""

FRAGMENTS = 0.25
"""Share of answers that are cut after a few words: too short an answer must be seen to lose."""

SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)


def misses(answer: str) -> int:
    """Return how far an answer is from the rule: 0 if it obeys, else the words to add or remove.

    Words after the first sentence count as words to remove; an answer without a full stop, question
    mark or exclamation mark at its end misses by one more.
    """
    sentences = SENTENCE.findall(answer.strip())
    words = len(answer.split())
    first = len(sentences[0].split()) if sentences else words
    unended = int(not answer.rstrip().endswith((".", "!", "?")))
    return max(SHORTEST - first, first - LONGEST, 0) + (words - first) + unended


def rule(
    prompts: Sequence[Any], completions: Sequence[str], opponents: Sequence[str]
) -> list[float]:
    """Return per pair the preference for the completion: 1 if it is nearer to the rule, 0.5 if even.

    Args:
        prompts: [pairs] not used: the rule looks at answers alone.
        completions: [pairs] responses of the policy.
        opponents: [pairs] responses that it is compared with.
    """
    return [
        0.5 if misses(own) == misses(other) else float(misses(own) < misses(other))
        for own, other in zip(completions, opponents, strict=True)
    ]


def prompts(seed: int) -> dict[str, list[str]]:
    """Return the prompts of each file, drawn without repetition."""
    topics = [topic.strip() for topic in TOPICS.replace("\n", " ").split(",")]
    every = [question.format(topic) for topic in topics for question in QUESTIONS]
    texts = map(str, np.random.default_rng(seed).permutation(every))
    return {name: [next(texts) for _ in range(size)] for name, size in SIZES.items()}


def answers(
    model_path: str, texts: Sequence[str], per_prompt: int, seed: int
) -> Iterator[list[str]]:
    """Yield the model's answers to each prompt, as sampled by transformers at temperature 0.8."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(model_path)
    for start in range(0, len(texts), 64 // per_prompt):
        chats = [turns(text) for text in texts[start : start + 64 // per_prompt]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        tokens = model.generate(
            **batch,
            do_sample=True,
            temperature=0.8,
            max_new_tokens=40,
            num_return_sequences=per_prompt,
        )[:, batch["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for first in range(0, len(decoded), per_prompt):
            yield decoded[first : first + per_prompt]


def cut(answer: str, generator: np.random.Generator) -> str:
    """Return an answer's first words as a sentence, one time in four; else one to three sentences.

    An answer without an end is returned whole.
    """
    if generator.random() < FRAGMENTS:
        words = answer.split()[: generator.integers(1, SHORTEST)]
        return f"{' '.join(words).rstrip('.,:;!?')}."
    sentences = SENTENCE.findall(answer.strip())
    chosen = sentences[: generator.integers(1, 4)]
    return "".join(chosen).strip() or answer.strip()


def rows(model_path: str, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each file, in the conversational form of TRL."""
    generator = np.random.default_rng(seed)
    asked = prompts(seed)
    written: dict[str, list[dict[str, Any]]] = {name: [] for name in SIZES}
    for text, (answer,) in zip(
        asked["demonstrations"], answers(model_path, asked["demonstrations"], 1, seed), strict=True
    ):
        written["demonstrations"].append({"messages": turns(text, cut(answer, generator))})
    pairs = answers(model_path, asked["comparisons"], 2, seed + 1)
    for text, pair in zip(asked["comparisons"], pairs, strict=True):
        better, worse = sorted((cut(answer, generator) for answer in pair), key=misses)
        if misses(better) < misses(worse):
            row = {"chosen": turns(text, better), "rejected": turns(text, worse)}
            written["comparisons"].append(row)
    written["prompts"] = [{"prompt": turns(text)} for text in asked["prompts"]]
    return written


def turns(question: str, answer: str | None = None) -> list[dict[str, str]]:
    """Return a conversation of one question and, if given, its answer."""
    chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    return chat if answer is None else [*chat, {"role": "assistant", "content": answer}]


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an instruct model's folder or name")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows(arguments.model, arguments.seed).items():
        path = arguments.folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        print(f"{path}: {len(lines)} rows")


if __name__ == "__main__":
    main()
