"""Responses of the models of a run, against transformers' and peft's own."""

import pytest
import torch
import transformers
from peft import PeftModel

from rlhfctl.errors import CheckpointError, UsageError
from rlhfctl.pipeline.finished import FinishedRun
from rlhfctl.sampling.conversation import Conversation
from rlhfctl.sampling.prompts import encoded, resolved_form
from rlhfctl.sampling.settings import SamplingSettings
from rlhfctl.sampling.stage_models import StageModels

GREEDY = SamplingSettings(max_new_tokens=8, temperature=0.0, seed=0)
SAMPLED = SamplingSettings(max_new_tokens=8, temperature=1.0, seed=0)
PROMPTS = [[2, 5, 9, 1, 3], [2, 40, 41, 42, 43, 1, 3]]


@pytest.fixture(scope="module")
def models(finished_run):
    return StageModels(FinishedRun.open(finished_run), ["base", "sft", "ppo"])


@torch.no_grad()
def greedy(model, prompt):
    """Return the most probable tokens, one full pass per token."""
    ids = list(prompt)
    while len(ids) < len(prompt) + 8 and ids[len(prompt) :][-1:] != [1]:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("stage", ["base", "sft", "ppo"])
def test_the_most_probable_tokens_are_those_of_peft_alone(
    models, stage, finished_run, finished_base
):
    plain = transformers.AutoModelForCausalLM.from_pretrained(finished_base).eval()
    model = plain if stage == "base" else PeftModel.from_pretrained(plain, finished_run / stage)
    tokenizer = models.context.tokenizer
    for prompt, response in zip(PROMPTS, models.respond(stage, PROMPTS, GREEDY), strict=True):
        expected = greedy(model.eval(), prompt)
        assert response.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (response.tokens, response.ended) == (len(expected), expected[-1] == 1)


def test_equal_seeds_give_equal_responses_and_others_do_not(models):
    first = models.respond("ppo", PROMPTS, SAMPLED)
    models.respond("base", PROMPTS, SAMPLED)
    assert models.respond("ppo", PROMPTS, SAMPLED) == first
    assert models.respond("ppo", PROMPTS, SamplingSettings(8, 1.0, 1)) != first


def test_the_reward_model_and_unfinished_stages_are_refused(finished_run):
    finished = FinishedRun.open(finished_run)
    rest = {name: record for name, record in finished.manifest.stages.items() if name != "sft"}
    without = FinishedRun(finished.directory, finished.recipe, type(finished.manifest)(rest))
    with pytest.raises(CheckpointError, match="no SFT checkpoint"):
        StageModels(without, ["sft"])


def test_prompts_have_the_form_of_the_run_s_own(models):
    context = models.context
    assert resolved_form("auto", context) == "chat", "the embedded world's rows are conversations"
    decoded = context.tokenizer.decode(encoded(["red"], "chat", context, "blue")[0])
    # The world's tokenizer starts words with a space.
    assert decoded.replace(" ", "") == "<|user|>blue<|end|><|user|>red<|end|><|assistant|>"
    assert context.tokenizer.decode(encoded(["red"], "text", context)[0]).strip() == "red"


def test_a_conversation_remembers_its_turns_until_it_is_reset(models):
    conversation = Conversation(models, "ppo", GREEDY)
    first = conversation.say("red")
    assert [turn["content"] for turn in conversation.turns] == ["red", first.text]
    conversation.reset()
    assert conversation.say("red").text == first.text


def test_a_conversation_beyond_the_model_s_length_is_refused_and_unchanged(models):
    conversation = Conversation(models, "sft", GREEDY)
    with pytest.raises(UsageError, match=r"exceeds the 128 that the model takes\n?"):
        conversation.say("red " * 200)
    assert conversation.turns == []
