"""The tokenizer: a pad that ends nothing, and a digest of all that turns text into ids."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from rlhfctl.errors import EnvironmentFault, RecipeError
from rlhfctl.models.tokenizer import load_tokenizer, tokenizer_digest
from rlhfctl.recipe.schema import ModelSection
from rlhfctl.world.model import embedded_path


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(embedded_path(), copy)
    return copy


def configure(folder, **changes):
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return ModelSection(name_or_path=str(folder))


def test_a_pad_that_is_eos_is_replaced_by_a_token_of_its_own(folder):
    tokenizer = load_tokenizer(configure(folder, pad_token="<|end|>"))
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_a_tokenizer_without_eos_is_refused(folder):
    with pytest.raises(EnvironmentFault, match="EOS"):
        load_tokenizer(configure(folder, eos_token=None))


def test_a_chat_template_from_a_file_changes_the_digest(folder, tmp_path):
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}")
    section = ModelSection(name_or_path=str(folder))
    own = load_tokenizer(section)
    other = load_tokenizer(section.model_copy(update={"chat_template": str(template)}))
    assert other.chat_template == template.read_text()
    assert tokenizer_digest(own) != tokenizer_digest(other)
    assert tokenizer_digest(own) == tokenizer_digest(load_tokenizer(section))


def test_a_chat_template_that_is_not_there_is_an_error_of_the_recipe(folder):
    section = ModelSection(name_or_path=str(folder), chat_template="/nowhere/chat.jinja")
    with pytest.raises(RecipeError, match=r"model\.chat_template"):
        load_tokenizer(section)


def named(folder, **templates):
    """Give a folder's tokenizer several chat templates by name."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(folder)
    return ModelSection(name_or_path=str(folder))


def test_of_several_chat_templates_the_default_is_used_or_the_one_that_is_named(folder, tmp_path):
    section = named(folder, default="{{ messages }}", tool_use="{{ tools }}{{ messages }}")
    assert load_tokenizer(section).chat_template == "{{ messages }}"
    tool_use = section.model_copy(update={"chat_template": "tool_use"})
    assert load_tokenizer(tool_use).chat_template == "{{ tools }}{{ messages }}"
    unknown = section.model_copy(update={"chat_template": "rag"})
    with pytest.raises(RecipeError, match="no chat template of this name") as error:
        load_tokenizer(unknown)
    assert error.value.hint == "The tokenizer's templates: default, tool_use."
    path = tmp_path / "own.jinja"
    path.write_text("{{ messages }}!")
    own = section.model_copy(update={"chat_template": str(path)})
    assert load_tokenizer(own).chat_template == "{{ messages }}!"


def test_several_chat_templates_without_a_default_are_named(folder):
    with pytest.raises(RecipeError, match="none named default: rag, tool_use"):
        load_tokenizer(named(folder, rag="{{ messages }}", tool_use="{{ messages }}"))


def test_the_variables_of_the_chat_template_change_the_digest(folder):
    tokenizer = load_tokenizer(ModelSection(name_or_path=str(folder)))
    assert tokenizer_digest(tokenizer, {}) == tokenizer_digest(tokenizer)
    assert tokenizer_digest(tokenizer, {"enable_thinking": False}) != tokenizer_digest(tokenizer)


def test_ids_beyond_the_embeddings_are_refused_by_name(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|new|>"]})
    tokenizer.save_pretrained(folder)
    with pytest.raises(RecipeError, match=r"'<\|new\|>' is \d+.*embeddings for \d+ only"):
        load_tokenizer(ModelSection(name_or_path=str(folder)))
