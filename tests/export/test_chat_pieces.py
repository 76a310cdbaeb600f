"""Chat templates rewritten for Ollama render as Jinja does, or are refused."""

import json
import re

import pytest
import transformers

from rlhfctl.data.rendering import ChatTemplate
from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.export.chat_pieces import chat_pieces
from rlhfctl.export.ollama import go_template, modelfile
from rlhfctl.export.serving_files import with_variables, without_generation_marks
from rlhfctl.recipe.schema import ModelSection, Recipe
from rlhfctl.stages.shared.stage_context import open_stage_context

CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|user|>Be \"brief\".\n"
    "{% endif %}{{ '<|user|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|user|>assistant\n' }}{% endif %}"
)
NUMBERED = (
    "{% for m in messages %}{{ loop.index }}. {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}> {% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONVERSATIONS = (
    ("user",),
    ("user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user"),
)


@pytest.fixture
def context():
    return open_stage_context(Recipe(model=ModelSection(name_or_path="embedded")))


def in_go(template, messages):  # noqa: C901 - one small interpreter
    """Render the part of Go's text/template that is used: range, if, else if, eq, ne, strings."""
    # White space beside a trimming mark goes; what is left alternates between text and action.
    source = re.sub(r"\s*\{\{-", "{{", template)
    parts = re.split(r"\{\{\s*(.*?)\s*\}\}", source)

    def run(place, message, shown):
        """Render from an action's place to its `end` or `else`; return the text and that place."""
        text = ""
        while place < len(parts):
            if place % 2 == 0:
                text, place = text + parts[place], place + 1
                continue
            action = parts[place]
            if action == "end" or action.startswith("else"):
                return text, place
            if action == "range .Messages":
                inner = [run(place + 1, one, shown) for one in messages]
                text += "".join(piece for piece, _ in inner)
                place = inner[0][1] + 1
            elif action.startswith("if "):
                piece, place = branches(place, message, shown)
                text += piece
            else:
                text += message["content"] if action == ".Content" else json.loads(action)
                place += 1
        return text, place

    def branches(place, message, shown):
        chosen, done = "", False
        while True:
            condition = parts[place].removeprefix("else ").removeprefix("if ")
            piece, after = run(place + 1, message, shown)
            if not done and holds(condition, message):
                chosen, done = piece, True
            place = after
            if parts[place] == "end":
                return chosen, place + 1

    def holds(condition, message):
        if condition == ".Messages":
            return bool(messages)
        operator, *role, value = condition.split()
        actual = messages[0]["role"] if "(index" in role else message["role"]
        return (actual == json.loads(value)) == (operator == "eq")

    return run(0, None, True)[0]


@pytest.mark.parametrize("own", [None, CHATML, NO_SYSTEM], ids=["embedded", "chatml", "no-system"])
def test_a_go_template_renders_as_jinja_does(context, own):
    if own is not None:
        context.tokenizer.chat_template = own
    template = ChatTemplate(context.tokenizer)
    go = go_template(context)
    assert '"""' not in go, "it would end the Modelfile's string"
    for roles in CONVERSATIONS:
        if own == NO_SYSTEM and "system" in roles:
            continue
        messages = [{"role": role, "content": f"{role} says"} for role in roles]
        assert in_go(go, messages) == template.render(messages, ask=True)


def test_a_template_with_conditions_is_refused(context):
    context.tokenizer.chat_template = NUMBERED
    assert chat_pieces(ChatTemplate(context.tokenizer)) is None
    with pytest.raises(UsageError, match="cannot be written as a Go template"):
        go_template(context)


def test_a_modelfile_has_the_stops_and_the_plain_softmax(context):
    text = modelfile("model.gguf", context)
    assert text.startswith('FROM ./model.gguf\nTEMPLATE """')
    assert 'PARAMETER stop "<|end|>"' in text
    assert "PARAMETER top_k 0\nPARAMETER top_p 1\n" in text


def test_variables_of_the_recipe_are_written_into_the_template():
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        open_stage_context(Recipe()).tokenizer.name_or_path
    )
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if thinking %}<t>{% else %}<no>{{ name }}{% endif %}"
    )
    variables = {"thinking": False, "name": 'a "b"\n'}
    tokenizer.chat_template = with_variables(tokenizer, variables)
    turns = [{"role": "user", "content": "x"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == 'x<no>a "b"\n'
    # JSON's null within a list is no literal of Jinja.
    tokenizer.chat_template = "{% if values[0] is none %}none{% endif %}"
    with pytest.raises(RecipeError, match="cannot be written into the chat template"):
        with_variables(tokenizer, {"values": [None]})


def test_marks_that_only_transformers_knows_become_conditions(context):
    marked = context.tokenizer.chat_template
    assert "{% generation %}" in marked
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant")]
    before = context.tokenizer.apply_chat_template(turns, tokenize=False)
    plain = without_generation_marks(marked)
    assert "generation %}" not in plain.replace("add_generation_prompt", "")
    context.tokenizer.chat_template = plain
    assert context.tokenizer.apply_chat_template(turns, tokenize=False) == before
    assert without_generation_marks("a {%- endgeneration -%} b") == "a {%- endif -%} b"
