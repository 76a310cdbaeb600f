"""The alignment tax and drift of a tiny run, against the models loaded on their own."""

import pytest
import torch


@pytest.fixture(scope="module")
def metrics(tiny_run):
    tiny_run.stage("eval")
    return tiny_run.metrics["eval"]


def test_perplexity_is_that_of_the_models_loaded_on_their_own(tiny_run, metrics):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rlhfctl.data.formatting import encode_demonstrations
    from rlhfctl.data.sources import load_demonstrations
    from rlhfctl.stages.shared.stage_context import open_stage_context
    from rlhfctl.world.model import embedded_path

    session = open_stage_context(tiny_run.recipe)
    rows = load_demonstrations(tiny_run.recipe).held_out
    encoded = encode_demonstrations(rows, session.formatter, tiny_run.recipe.sft.max_length).dataset
    found = metrics["tax"]["tasks"]["demonstrations"]
    assert found["examples"] == len(encoded) > 1

    def loss(model):
        total, tokens = 0.0, 0
        for ids, mask in zip(encoded["input_ids"], encoded["completion_mask"], strict=True):
            at = list(mask).index(1)
            table = model(torch.tensor([list(ids)])).logits[0, at - 1 : -1].log_softmax(-1)
            own = torch.tensor(list(ids)[at:])
            total -= float(table.gather(1, own[:, None]).double().sum())
            tokens += len(own)
        return total / tokens

    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32).eval()
        assert found["base"] == pytest.approx(loss(base), abs=1e-5)
        for name in ("sft", "ppo"):
            base = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
            model = PeftModel.from_pretrained(base, tiny_run.stage(name)).eval()
            assert found[name] == pytest.approx(loss(model), abs=1e-5), name
    assert found["sft_minus_base"] == pytest.approx(found["sft"] - found["base"])
    assert found["sft_minus_base_high"] < 0, "SFT learnt nothing of demonstrations"


def test_closed_questions_are_answered_above_chance_by_all_three(metrics):
    found = metrics["tax"]["tasks"]["closed_questions"]
    assert found["examples"] == 32
    assert found["higher_is_better"]
    assert min(found[name] for name in ("base", "sft", "ppo")) > 0.4


def test_drift_of_both_policies(metrics):
    drift = metrics["drift"]
    assert drift["sft"]["kl_per_token"] == 0
    for name in ("sft", "ppo"):
        assert 0 < drift[name]["entropy_low"] < drift[name]["entropy"] < drift[name]["entropy_high"]
        assert drift[name]["length"]["mean"] == metrics["policies"][name]["length"]
        assert drift[name]["truncated"] == pytest.approx(1 - metrics["policies"][name]["eos_share"])
    assert isinstance(drift["phrases"], list)


def test_full_fine_tuning_has_no_base_beside_it(tiny_full_run, tmp_path):
    from rlhfctl.run.monitor import NullMonitor
    from rlhfctl.stages.evaluation import stage as evaluation

    inputs = {"sft": tiny_full_run.stage("sft")}
    found = evaluation.run(tiny_full_run.recipe, inputs, tmp_path, NullMonitor()).metrics
    task = found["tax"]["tasks"]["demonstrations"]
    assert "sft" in task
    assert not {"base", "ppo", "sft_minus_base"} & set(task)


def test_demonstrations_that_are_not_at_hand_are_told_of_and_left_out(tiny_run, tmp_path):
    from rlhfctl.run.monitor import NullMonitor
    from rlhfctl.stages.evaluation import stage as evaluation

    told = []

    class Listening(NullMonitor):
        def warn(self, message):
            told.append(message)

    data = tiny_run.recipe.data
    elsewhere = data.demonstrations.model_copy(update={"source": str(tmp_path / "gone.jsonl")})
    recipe = tiny_run.recipe.model_copy(
        update={"data": data.model_copy(update={"demonstrations": elsewhere})}
    )
    found = evaluation.run(recipe, {"sft": tiny_run.stage("sft")}, tmp_path, Listening()).metrics
    assert set(found["tax"]["tasks"]) == {"closed_questions"}
    assert any("gone.jsonl" in message for message in told)


def test_closed_questions_share_no_prompt_with_what_any_stage_trains_on(tiny_run):
    from rlhfctl.data.sources import (
        load_comparisons,
        load_demonstrations,
        load_prompts,
        never_trained_on,
    )
    from rlhfctl.data.split import prompt_key
    from rlhfctl.world.closed import closed_questions

    recipe = tiny_run.recipe
    parts = [load(recipe) for load in (load_demonstrations, load_comparisons, load_prompts)]
    trained = {prompt_key(prompt) for part in parts for prompt in part.train["prompt"]}
    asked = closed_questions(
        500, recipe.seed, lambda text: never_trained_on(recipe, [{"role": "user", "content": text}])
    )
    assert len(asked) == 500
    assert not trained & {prompt_key(question.prompt) for question in asked}
