"""Rows for tokens that the model lacks: trained by SFT, and in every adapter that follows."""

import pytest
import torch
import transformers
from peft import PeftModel

from rlhfctl.data.formatter import Formatter
from rlhfctl.errors import RecipeError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.models.tokenizer import load_tokenizer
from rlhfctl.recipe.schema import ModelSection
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo.stage import run as run_ppo
from rlhfctl.stages.reward_model.stage import run as run_rm
from rlhfctl.stages.sft.stage import run as run_sft
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from rlhfctl.world.model import embedded_path

NEW_TOKENS = 8
"""Tokens that the base has no rows for."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="untied"),
        pytest.param(True, id="tied", marks=pytest.mark.slow),
    ],
)
def base(request, tmp_path_factory):
    """A tiny model whose tokenizer has ids beyond its embeddings, used by its chat template."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_path())
    rows = len(tokenizer)
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [f"<|new_{n}|>" for n in range(NEW_TOKENS)]}
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|new_0|>{{ m['role'] }}\n{{ m['content'] }}<|new_1|>{% endfor %}"
        "{% if add_generation_prompt %}<|new_0|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=request.param,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """The three stages on that base: recipe and folders."""
    from tests.conftest import tiny_recipe

    recipe = tiny_recipe(
        "lora.r=2", "lora.alpha=4",
        "data.demonstrations.max_rows=32", "data.comparisons.max_rows=24",
        "data.prompts.max_rows=40", "reward_model.calibration_samples=8", "ppo.episodes=16",
        "ppo.eval_rollouts=null", "ppo.warmup_rollouts=0", "generation.max_new_tokens=4",
    )  # fmt: skip
    model = ModelSection(name_or_path=str(base), resize_embeddings=True)
    recipe = recipe.model_copy(update={"model": model})
    root = tmp_path_factory.mktemp("run")
    folders = {}
    for name, stage in (("sft", run_sft), ("rm", run_rm), ("ppo", run_ppo)):
        folders[name] = root / name
        folders[name].mkdir()
        stage(recipe, {k: v for k, v in folders.items() if k != name}, folders[name], NullMonitor())
    return recipe, folders


def plainly(base, folder, auto, **options):
    """Load as the model card says."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = auto.from_pretrained(base, **options)
    rows = max(tokenizer.get_vocab().values()) + 1
    model.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, folder).eval(), rows


def test_without_the_key_it_is_named(base):
    with pytest.raises(RecipeError, match=r"resize_embeddings: true"):
        load_tokenizer(ModelSection(name_or_path=str(base)))


@torch.no_grad()
def test_every_adapter_loads_in_plain_peft_with_the_rows_that_were_trained(base, made):
    recipe, folders = made
    context = open_stage_context(recipe)
    formatter = Formatter(context.tokenizer)
    question = [{"role": "user", "content": "Where is Anna?"}]
    prompt = formatter.prompt_ids(question)
    response = formatter.response_ids(question, [{"role": "assistant", "content": "Here."}])
    rows = max(context.tokenizer.get_vocab().values()) + 1
    assert max(prompt) >= rows - NEW_TOKENS
    assert response[-1] >= rows - NEW_TOKENS
    batch, ids = Sequences.from_lists([prompt], [response], 0), torch.tensor([prompt + response])
    roles = open_roles(context, folders, critic="reward_model")
    for name, role in (("sft", "reference"), ("ppo", "policy")):
        model, _ = plainly(base, folders[name], transformers.AutoModelForCausalLM)
        table = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
        expected = table.gather(1, torch.tensor(response)[:, None])[:, 0]
        actual = roles.log_probs(role, batch, temperature=1.0).log_probs[0]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    scorer, _ = plainly(
        base, folders["rm"], transformers.AutoModelForSequenceClassification,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    torch.testing.assert_close(roles.raw_scores(batch), scorer(ids).logits[0], atol=1e-5, rtol=1e-5)
    critic, _ = plainly(
        base, folders["ppo"] / "critic", transformers.AutoModelForTokenClassification, num_labels=1
    )
    assert critic(ids).logits.shape == (1, ids.shape[1], 1)


@torch.no_grad()
def test_sft_trains_the_new_rows_and_no_other(base, made):
    _, folders = made
    sft, rows = plainly(base, folders["sft"], transformers.AutoModelForCausalLM)
    old = transformers.AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    new = sft.get_base_model().get_input_embeddings().weight
    assert new.shape[0] == rows == old.shape[0] + NEW_TOKENS
    torch.testing.assert_close(new[:-NEW_TOKENS], old)
    mean = old.mean(dim=0)
    assert (new[-NEW_TOKENS:][:2] - mean).abs().max() > 1e-4
