"""Mixtures: what each source contributes, the same in every process and beside every other key."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from rlhfctl.data import cache, stored_rows
from rlhfctl.data.columns import read_columns
from rlhfctl.data.mixture import Shares
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts
from rlhfctl.errors import DataError
from rlhfctl.recipe.schema import Recipe


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a.jsonl", [{"prompt": f"A {n}?", "completion": f" a{n}"} for n in range(60)])
    write("b.jsonl", [{"instruction": f"B {n}?", "output": f"b{n}"} for n in range(30)])


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def recipe_of(seed=0, **data):
    return Recipe.model_validate({"seed": seed, "data": data})


def mixture(*weights, **keys):
    names = ("a.jsonl", "b.jsonl")
    sources = [
        {"source": name} | ({} if weight is None else {"weight": weight})
        for name, weight in zip(names, weights, strict=True)
    ]
    return {"sources": sources, "held_out": 0.2, **keys}


def completions(part):
    return Counter(part["completion"])


@pytest.mark.parametrize(
    ("weights", "oversample", "rows"),
    [
        (None, False, [90, 30, 10]),
        ((1.0, 1.0, 1.0), False, [10, 10, 10]),
        ((1.0, 1.0, 1.0), True, [90, 90, 90]),
        ((4.0, 2.0, 1.0), False, [40, 20, 10]),
        ((0.9, 0.05, 0.05), False, [90, 5, 5]),
        ((0.9, 0.05, 0.05), True, [540, 30, 30]),
        ((1e-6, 1.0, 1.0), False, [1, 10, 10]),
    ],
)
def test_rows_are_in_the_ratio_of_the_weights(weights, oversample, rows):
    shares = Shares(("a", "b", "c"), weights, oversample, 0)
    assert shares.counts([90, 30, 10]) == rows


def test_without_weights_every_row_is_there_once_in_its_own_form():
    split = load_demonstrations(recipe_of(demonstrations=mixture(None, None)))
    rows = completions(split.train) + completions(split.held_out)
    assert rows == Counter({f" a{n}": 1 for n in range(60)} | {f"b{n}": 1 for n in range(30)})
    assert (split.report.read, split.report.usable) == (90, 90)


def test_a_mixture_of_one_source_is_that_source():
    alone = load_demonstrations(recipe_of(demonstrations={"source": "a.jsonl"}))
    listed = load_demonstrations(recipe_of(demonstrations={"sources": [{"source": "a.jsonl"}]}))
    for part, other in ((alone.train, listed.train), (alone.held_out, listed.held_out)):
        assert part.to_list() == other.to_list()


@pytest.mark.parametrize("oversample", [False, True])
def test_weights_choose_training_rows_and_leave_the_held_out_ones(oversample):
    whole = load_demonstrations(recipe_of(demonstrations=mixture(None, None)))
    section = mixture(1, 3, oversample=oversample)
    split, again = (load_demonstrations(recipe_of(demonstrations=section)) for _ in range(2))
    other = load_demonstrations(recipe_of(1, demonstrations=section))
    assert split.train.to_list() == again.train.to_list() != other.train.to_list()
    assert split.held_out.to_list() == whole.held_out.to_list() == other.held_out.to_list()
    counts = completions(split.train)
    assert set(counts) <= set(whole.train["completion"])
    a, b = (sum(n for text, n in counts.items() if mark in text) for mark in "ab")
    assert b / a == pytest.approx(3, rel=0.1)
    if oversample:
        assert set(counts) == set(whole.train["completion"])
        assert len({n for text, n in counts.items() if "a" in text}) == 1
        assert max(counts.values()) - min(n for text, n in counts.items() if "b" in text) <= 1
    else:
        assert set(counts.values()) == {1}
    names = [(one.name, one.train, one.held_out) for one in split.report.sources]
    held = completions(split.held_out)
    assert names == [
        ("a.jsonl", a, sum(n for text, n in held.items() if "a" in text)),
        ("b.jsonl", b, sum(n for text, n in held.items() if "b" in text)),
    ]
    assert split.report.record()["sources"][1]["train"] == b
    assert f"b.jsonl: {b:,} training rows (" in split.report.source_lines()[1]


def test_comparisons_have_one_set_of_columns_and_their_source():
    pair = {"chosen": " x", "rejected": " y"}
    write("a.jsonl", [{"prompt": f"A {n}?", **pair, "annotator": "Ann"} for n in range(9)])
    write(
        "b.jsonl",
        [{"prompt": f"B {n}?", "responses": ["x", "y", "z"], "ranks": [1, 2, 3]} for n in range(9)],
    )
    split = load_comparisons(recipe_of(comparisons=mixture(None, None)))
    rows = [*split.train.to_list(), *split.held_out.to_list()]
    assert {(row["source"], row["annotator"], row["weight"]) for row in rows} == {
        ("a.jsonl", "Ann", 1.0),
        ("b.jsonl", "", 1 / 3),
    }


def test_a_prompt_of_two_sources_is_asked_once_and_columns_are_its_own():
    write("a.jsonl", [{"prompt": f"{n}?", "answer": f"a{n}"} for n in range(20)])
    write("b.jsonl", [{"prompt": f"{n}?", "answer": f"b{n}"} for n in range(10, 40)])
    recipe = recipe_of(prompts=mixture(2, 1))
    split = load_prompts(recipe)
    assert split.report.left_out == {"repeated prompts": 10}
    for part in (split.train, split.held_out):
        answers = read_columns(recipe, part, ["answer"])["answer"]
        numbers = [int(prompt.rstrip("?")) for prompt in part["prompt"]]
        assert answers == [f"a{n}" if n < 20 else f"b{n}" for n in numbers]


def test_the_same_rows_come_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_rows, "FEWEST_BYTES_STORED", 1)
    section = mixture(1, 3)
    monkeypatch.setenv(cache.VARIABLE, "")
    plain = load_demonstrations(recipe_of(demonstrations=section))
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    first, second = (load_demonstrations(recipe_of(demonstrations=section)) for _ in range(2))
    assert plain.train.to_list() == first.train.to_list() == second.train.to_list()
    assert plain.report == first.report == second.report
    assert first.train._fingerprint == second.train._fingerprint
    other = load_demonstrations(recipe_of(demonstrations=mixture(1, 2)))
    assert other.train._fingerprint != first.train._fingerprint


def test_sources_of_two_forms_are_refused_by_name():
    messages = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A"}]
    write("b.jsonl", [{"messages": messages}] * 9)
    with pytest.raises(DataError, match="9 messages beside text") as caught:
        load_demonstrations(recipe_of(demonstrations=mixture(None, None)))
    assert caught.value.where == "b.jsonl"
    assert "as_chat" in caught.value.hint
    section = mixture(None, None)
    section["sources"][0]["as_chat"] = True
    assert load_demonstrations(recipe_of(demonstrations=section)).report.usable == 69


def test_a_bad_source_does_not_hide_among_good_ones():
    write("b.jsonl", [{"prompt": "Q?", "completion": ""}, {"prompt": "R?", "completion": "x"}])
    with pytest.raises(DataError, match="1 of 2 rows cannot be used") as caught:
        load_demonstrations(recipe_of(demonstrations=mixture(None, None), max_bad_fraction=0.2))
    assert caught.value.where == "b.jsonl"
