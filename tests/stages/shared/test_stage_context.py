"""Set-up shared by every stage: stop tokens, and a pad token that is none of them."""

import pytest
import torch

from rlhfctl.errors import CheckpointError, RecipeError
from rlhfctl.models.provenance import Provenance, check_tokens
from rlhfctl.models.tokenizer import tokenizer_digest
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.stages.reward_model.training import _model
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

ENDED_BY_PAD = "{% for m in messages %}{{ m['content'] }}<|pad|>{% endfor %}"


def recipe_of(stops=(), template=None):
    whole = Recipe()
    return whole.model_copy(
        update={
            "generation": whole.generation.model_copy(update={"stop_tokens": list(stops)}),
            "model": ModelSection(chat_template=template),
        }
    )


def test_stop_tokens_of_the_recipe_stand_beside_eos():
    session = open_stage_context(recipe_of(["<|user|>"]))
    tokenizer = session.tokenizer
    expected = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|user|>")}
    assert set(session.stop_token_ids) == expected


def test_denormal_numbers_are_rounded_to_zero_in_every_stage():
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    smallest = torch.full((8,), 2e-38)
    assert (smallest / 4 > 0).all()
    open_stage_context(recipe_of())
    assert (smallest / 4 == 0).all()


def test_a_stop_token_that_is_the_pad_gets_another_pad():
    context = open_stage_context(recipe_of(["<|pad|>"]))
    assert context.tokenizer.convert_tokens_to_ids("<|pad|>") in context.stop_token_ids
    assert context.tokenizer.pad_token_id not in context.stop_token_ids


def test_a_chat_template_that_ends_turns_with_the_pad_gets_another_pad(tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text(ENDED_BY_PAD)
    context = open_stage_context(recipe_of(template=str(template)))
    assert context.formatter.end_id == context.tokenizer.convert_tokens_to_ids("<|pad|>")
    assert context.tokenizer.pad_token_id not in context.stop_token_ids


def test_a_stop_token_that_the_vocabulary_lacks_is_named():
    with pytest.raises(RecipeError, match=r"'<\|nobody\|>'"):
        open_stage_context(recipe_of(["<|nobody|>"]))


@pytest.fixture
def recorded(tmp_path):
    """A checkpoint of the default recipe without weights, as far as its record goes."""
    session = open_stage_context(Recipe())
    stops = list(session.stop_token_ids)
    Provenance("sft", "embedded", "any", tokenizer_digest(session.tokenizer), stops).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("lora", [{}, {"lora": None}])
def test_a_checkpoint_of_other_stop_tokens_is_refused_before_its_weights_load(recorded, lora):
    session = open_stage_context(recipe_of(["<|user|>"]).model_copy(update=lora))
    for use in (
        lambda: open_roles(session, {"sft": recorded}),
        lambda: _model(session, recorded, 0),
    ):
        with pytest.raises(CheckpointError, match="the stop tokens") as caught:
            use()
        assert "train its stage again" in str(caught.value)


def test_a_checkpoint_of_another_chat_template_is_refused(recorded, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    session = open_stage_context(recipe_of(template=str(template)))
    with pytest.raises(CheckpointError, match="chat template"):
        check_tokens(recorded, session.tokenizer, session.stop_token_ids)


def test_a_checkpoint_of_the_same_tokens_or_of_another_tool_is_accepted(recorded, tmp_path_factory):
    session = open_stage_context(Recipe())
    check_tokens(recorded, session.tokenizer, session.stop_token_ids)
    check_tokens(tmp_path_factory.mktemp("other"), session.tokenizer, session.stop_token_ids)
