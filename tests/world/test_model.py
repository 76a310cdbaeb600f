import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhfctl.world import corpora
from rlhfctl.world.gold import gold_features
from rlhfctl.world.model import embedded_path


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(embedded_path())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_path())


def test_the_checkpoint_is_small_and_safe():
    files = list(embedded_path().iterdir())
    assert sum(file.stat().st_size for file in files) < 8_000_000
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors"}


def test_plain_transformers_loads_it(model, tokenizer):
    assert type(model).__name__ == "LlamaForCausalLM"
    assert 1_000_000 <= model.num_parameters() <= 5_000_000
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_its_pretraining_is_on_record():
    record = json.loads((embedded_path() / "pretraining.json").read_text(encoding="utf-8"))
    assert record["steps"] == record["planned_steps"]
    legs = [*record["earlier"], record]
    losses = [point["loss"] for leg in legs for point in leg["loss_curve"]]
    assert losses[-1] < losses[0] / 3
    assert record["held_out_accuracy"]["answers"]["mean"] >= 0.85
    assert record["held_out_accuracy"]["verdicts"]["mean"] >= 0.85


def test_it_answers_questions_it_was_not_trained_on(model, tokenizer):
    prompts = [row["prompt"] for row in corpora.prompts(96, seed=123)]
    inputs = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
    responses = tokenizer.batch_decode(
        output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    right = [
        gold_features(prompt[0]["content"], response).correctness == 1.0
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    assert sum(right) / len(right) >= 0.75
