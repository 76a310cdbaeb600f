"""The tokenizer: a pad that ends nothing, and a digest of all that turns text into ids."""

import json
import shutil

import pytest

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
