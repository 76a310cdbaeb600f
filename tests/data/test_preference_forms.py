"""Forms of preference sets whose pairs are numbered, listed, scored or nested."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhfctl.data.cells import choice_of, object_of
from rlhfctl.data.column_hints import mapping_hint
from rlhfctl.data.form_table import named_forms
from rlhfctl.data.rows import BadRowError
from rlhfctl.errors import DataError
from tests.data.test_forms import alpaca, assistant, read, user

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
PAIRS: dict[tuple[str, bool], list[dict[str, Any]]] = {
    ("pku_saferlhf", False): [
        {"prompt": "Name a fruit.\n\n", "chosen": "Apple.", "rejected": "Nail."},
        {"prompt": "Name a nut.\n\n", "chosen": "Pecan.", "rejected": "Rock."},
    ],
    ("webgpt", False): [
        {
            "prompt": "Why do apples fall?\n\n",
            "chosen": "Gravity [1].",
            "rejected": "Magic.",
            "margin": 1.0,
        },
        {
            "prompt": "Why is rice white?\n\n",
            "chosen": "It is husked.",
            "rejected": "Paint.",
            "margin": 0.5,
        },
    ],
    ("openai_preference", False): [
        {
            "prompt": [user("Is it raining?") | {"other_fields": json.dumps({"tools": [TOOL]})}],
            "chosen": [assistant("I can look.")],
            "rejected": [assistant("Yes.")],
        },
        {
            "prompt": [user("Name a fruit.") | {"other_fields": None}],
            "chosen": [assistant("Apple.")],
            "rejected": [assistant("Nail.")],
        },
    ],
    ("stack_exchange", True): [
        {
            "prompt": [user("<p>How long do eggs take?</p>")],
            "chosen": [assistant("<p>Eight minutes.</p>")],
            "rejected": [assistant("<p>Ages.</p>")],
            "weight": 1.0,
        },
        {
            "prompt": [user("<p>Is rice gluten free?</p>")],
            "chosen": [assistant("<p>Yes.</p>")],
            "rejected": [assistant("<p>Eh.</p>")],
            "weight": 1.0,
        },
    ],
    ("distilabel", False): [
        {"prompt": "Name a fruit.\n\n", "chosen": "Apple.", "rejected": "Nail.", "weight": 1.0},
        {"prompt": "Name a nut.\n\n", "chosen": "Pecan.", "rejected": "Rock.", "weight": 1.0},
    ],
    ("alpaca_pairs", False): [
        {"prompt": alpaca("Translate.", "apple"), "chosen": "Apfel", "rejected": "Apple"},
        {"prompt": alpaca("Name a nut."), "chosen": "Pecan.", "rejected": "Rock."},
    ],
}


@pytest.mark.parametrize(("name", "as_chat"), PAIRS)
def test_pairs(name, as_chat):
    rows, report = read("comparisons", f"{name}.jsonl", as_chat=as_chat)
    given = [{key: value for key, value in row.items() if value is not None} for row in rows]
    assert sorted(given, key=lambda row: str(row["prompt"])) == PAIRS[name, as_chat]
    assert not report.dropped
    assert report.left_out == ({"tied vote": 1} if name == "webgpt" else {})


@pytest.mark.parametrize(("name", "as_chat"), PAIRS)
def test_prompts_are_those_of_the_pairs(name, as_chat):
    rows, _ = read("prompts", f"{name}.jsonl", as_chat=as_chat)
    prompts = [row["prompt"] for row in rows]
    for pair in PAIRS[name, as_chat]:
        assert pair["prompt"] in prompts


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"better_response_id": 2}, "better_response_id is not 0 or 1"),
        ({"better_response_id": None}, "better_response_id is not 0 or 1"),
        ({"prompt": " "}, "empty prompt"),
        ({"response_1": None}, "chosen is missing"),
    ],
)
def test_a_pair_that_cannot_be_read_is_counted_by_its_cause(tmp_path, row, cause):
    sound = {"response_0": "a", "response_1": "b", "better_response_id": 1}
    rows = [*({"prompt": f"{n}?"} | sound for n in range(3)), {"prompt": "x"} | sound | row]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    _, report = read("comparisons", "", source=str(path))
    assert (report.usable, report.dropped) == (3, {cause: 1})


def test_cells():
    assert [choice_of(value, "x") for value in (0, True, "1", "0.0", 1.0)] == [0, 1, 1, 0, 1]
    assert object_of('{"a": 1}', "x") == {"a": 1}
    with pytest.raises(BadRowError, match="x is not an object"):
        object_of("[1]", "x")


@pytest.mark.parametrize(
    ("kind", "columns", "mapping"),
    [
        ("demonstrations", ["inputs", "targets"], "{prompt: inputs, completion: targets}"),
        ("demonstrations", ["prompt", "Response"], "{completion: Response}"),
        ("demonstrations", ["dialogue", "id"], "{messages: dialogue}"),
        (
            "comparisons",
            ["instruction", "chosen_response", "rejected_response"],
            "{prompt: instruction, chosen: chosen_response, rejected: rejected_response}",
        ),
        ("comparisons", ["prompt", "choosen", "rejected"], "{chosen: choosen}"),
        ("prompts", ["query"], "{prompt: query}"),
    ],
)
def test_columns_of_usual_names_are_suggested(kind, columns, mapping):
    hint = mapping_hint(kind, named_forms(kind, "trl"), columns)
    assert hint == f"for example data.{kind}.columns: {mapping}"


def test_the_suggestion_is_in_the_refusal(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "a?", "response": "b"}\n')
    with pytest.raises(DataError) as raised:
        read("demonstrations", "", source=str(path))
    assert "{prompt: query, completion: response}" in raised.value.hint
