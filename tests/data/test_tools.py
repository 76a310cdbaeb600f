"""A `tools` column reaches the chat template, or is counted where it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhfctl.data.formatter import Formatter
from rlhfctl.data.formatting import encode_comparisons, encode_demonstrations, encode_prompts
from rlhfctl.data.rows import BadRowError
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts
from rlhfctl.data.tools import with_tools
from rlhfctl.errors import DataError
from rlhfctl.recipe.schema import Recipe

ENCODE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "demonstrations": (load_demonstrations, encode_demonstrations),
    "comparisons": (load_comparisons, encode_comparisons),
    "prompts": (load_prompts, encode_prompts),
}


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [[tool("add", a={"type": "number"})], [tool("say", text={"type": "string"})], None, []]


def said(role, content):
    return [{"role": role, "content": content}]


def rows_of(kind, tools=TOOLS, turns=True):
    user = (lambda text: said("user", text)) if turns else str
    bot = (lambda text: said("assistant", text)) if turns else str
    rows = []
    for number, own in enumerate(tools):
        row = {"prompt": user(f"Question {number // 2}?"), "tools": own}
        if kind == "demonstrations":
            row["completion"] = bot("Yes.")
        if kind == "comparisons":
            row |= {"chosen": bot("Yes."), "rejected": bot("No.")}
        rows.append(row)
    return rows


def encoded(kind, tokenizer, source, **keys):
    load, encode = ENCODE[kind]
    section = {"source": source, "held_out": 0.01, **keys}
    split = load(Recipe.model_validate({"data": {"max_bad_fraction": 1.0, kind: section}}))
    results = [encode(part, Formatter(tokenizer), 2000) for part in (split.train, split.held_out)]
    return split, results


@pytest.fixture
def shows(chatml):
    """A template that writes the tools, as Qwen's does."""
    return "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}" + chatml


@pytest.mark.parametrize("kind", ENCODE)
@pytest.mark.parametrize("form", ["list", "json", "table"])
def test_each_row_has_its_own_tools_in_its_ids(kind, form, shows, make_tokenizer, tmp_path):
    rows = rows_of(kind)
    source = tmp_path / ("x.parquet" if form == "table" else "x.jsonl")
    if form == "table":  # each schema has the keys of all others, with None
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        shown = [r | {"tools": json.dumps(r["tools"])} for r in rows] if form == "json" else rows
        source.write_text("".join(json.dumps(row) + "\n" for row in shown))
    tokenizer = make_tokenizer(shows)
    split, results = encoded(kind, tokenizer, str(source))
    name = "chosen_ids" if kind == "comparisons" else "input_ids"
    found = sorted(tokenizer.decode(ids) for one in results for ids in one.dataset[name])
    answer = "" if kind == "prompts" else "Yes.<|im_end|>"
    expected = {
        tokenizer.apply_chat_template(
            row["prompt"], tools=row["tools"] or None, add_generation_prompt=True, tokenize=False
        )
        + answer
        for row in rows
    }
    # The last two prompts are the same; the first two have other tools.
    assert sorted(set(found)) == sorted(expected)
    assert len(found) == (3 if kind == "prompts" else 4)
    assert split.report.duplicates == (1 if kind == "prompts" else 0)


@pytest.mark.parametrize("kind", ENCODE)
def test_a_template_without_tools_leaves_out_the_rows_that_have_some(
    kind, chatml, make_tokenizer, tmp_path
):
    source = tmp_path / "x.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, TOOLS * 9)))
    load, encode = ENCODE[kind]
    split = load(Recipe.model_validate({"data": {kind: {"source": str(source)}}}))
    dropped = encode(split.train, Formatter(make_tokenizer(chatml)), 2000).report.dropped
    with_some = sum(1 for prompt in split.train["prompt"] if prompt[0].get("other_fields"))
    assert dropped == {"with tools that the chat template does not render": with_some}
    assert with_some


def test_plain_text_leaves_tools_out_and_says_so(shows, make_tokenizer, tmp_path):
    source = tmp_path / "x.jsonl"
    rows = rows_of("demonstrations", TOOLS, turns=False)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = make_tokenizer(shows)
    split, _ = encoded("demonstrations", tokenizer, str(source))
    (note,) = split.report.notes
    assert note.startswith("2 rows have tools, which plain text leaves out; as_chat: true gives")
    split, results = encoded("demonstrations", tokenizer, str(source), as_chat=True)
    assert split.report.notes == ()
    texts = [tokenizer.decode(ids) for one in results for ids in one.dataset["input_ids"]]
    assert sum('"name"' in text for text in texts) == 2


def test_tools_of_another_column_and_of_a_message(shows, make_tokenizer, tmp_path):
    turns = [said("user", "Question 1?")[0] | {"tools": TOOLS[0]}, *said("assistant", "Yes.")]
    rows = [
        {"messages": turns, "functions": TOOLS[1]},
        {"messages": [*said("user", "Question 2?"), turns[1]], "functions": TOOLS[1]},
    ]
    source = tmp_path / "x.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = make_tokenizer(shows)
    _, results = encoded("demonstrations", tokenizer, str(source), columns={"tools": "functions"})
    texts = sorted(tokenizer.decode(ids) for one in results for ids in one.dataset["input_ids"])
    assert [('"add"' in text, '"say"' in text) for text in texts] == [(True, False), (False, True)]


@pytest.mark.parametrize("cell", ["{broken", '{"name": "add"}', ["add"], 3, [{"x": float("nan")}]])
def test_a_cell_that_is_no_list_of_tools_is_a_bad_row(cell):
    with pytest.raises(BadRowError, match="tools is not a list of JSON objects"):
        with_tools({"prompt": said("user", "Hi")}, cell)


@pytest.mark.parametrize("cell", [None, "", "[]", "null", []])
def test_no_tools_change_nothing(cell):
    row = {"prompt": said("user", "Hi")}
    assert with_tools(row, cell) is row


def test_tools_are_counted_with_their_place(tmp_path):
    source = tmp_path / "x.jsonl"
    row = rows_of("demonstrations")[0]
    source.write_text(json.dumps(row) + "\n" + json.dumps(row | {"tools": 7}) + "\n")
    recipe = Recipe.model_validate({"data": {"demonstrations": {"source": str(source)}}})
    with pytest.raises(DataError, match=r"1 tools is not a list of JSON objects .first: .*:2"):
        load_demonstrations(recipe)
