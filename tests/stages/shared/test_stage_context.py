"""Set-up shared by every stage: stop tokens, and a pad token that is none of them."""

import pytest

from rlhfctl.errors import RecipeError
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.stages.shared.stage_context import open_stage_context

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
