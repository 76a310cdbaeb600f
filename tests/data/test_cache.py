"""The cache: encoded once, the same rows from it, and damage that is said and mended."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset

from rlhfctl.data import cache, formatting, stored_rows
from rlhfctl.data.arrow_parts import CannotStoreError, PartWriter
from rlhfctl.data.digests import digest_of, formatter_digest, rows_digest
from rlhfctl.data.encoders import Encoder
from rlhfctl.data.formatter import Formatter
from rlhfctl.data.formatting import encode_comparisons, encode_demonstrations, encode_prompts
from rlhfctl.data.progress import NoProgress
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts
from rlhfctl.data.split import position, prompt_key
from rlhfctl.data.workers import in_order
from rlhfctl.recipe.schema import Recipe

ROWS = 60


class Said(NoProgress):
    """Collects what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []
        self.done = 0

    def start(self, stage, total, unit):
        self.phases.append(f"{stage} {total} {unit}")

    def step(self, done, metrics):
        assert not metrics
        self.done = done

    def note(self, message):
        self.notes.append(message)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache that stores sets of any size, and the current folder."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(stored_rows, "FEWEST_BYTES_STORED", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "data"


def pairs(count=ROWS):
    rows: list[dict[str, Any]] = [
        {"prompt": f"Question {n}?", "chosen": f" Yes {n}." * (n % 7 + 1), "rejected": " No."}
        for n in range(count)
    ]
    rows[7]["chosen"] = " No."
    rows[11]["margin"] = 2
    return rows


def write(rows, name="x.jsonl"):
    with open(name, "w") as file:  # noqa: PTH123
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return name


def recipe_of(source="x.jsonl", **keys):
    sections = {name: {"source": source} for name in ("comparisons", "prompts")}
    answers = {"source": source, "columns": {"completion": "chosen"}}
    data = {"max_bad_fraction": 1.0, "demonstrations": answers, **sections, **keys}
    return Recipe.model_validate({"data": data})


LIMITS = {"demonstrations": 40, "comparisons": 40, "prompts": 11}
LOADERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "demonstrations": (load_demonstrations, encode_demonstrations),
    "comparisons": (load_comparisons, encode_comparisons),
    "prompts": (load_prompts, encode_prompts),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_rows_ids_and_counts_are_those_without_a_cache(kind, folder, make_tokenizer, monkeypatch):
    write(pairs())
    load, encode = LOADERS[kind]
    results = []
    for used in ("", str(folder.parent), str(folder.parent)):
        monkeypatch.setenv(cache.VARIABLE, used)
        split = load(recipe_of())
        formatter = Formatter(make_tokenizer())
        encoded = [encode(part, formatter, LIMITS[kind]) for part in (split.train, split.held_out)]
        results.append(
            (
                *(split.train.to_list(), split.held_out.to_list(), split.report),
                *((one.dataset.to_list(), one.report, one.longest) for one in encoded),
            )
        )
        reused = [one.reused for one in encoded]
    assert results[0] == results[1] == results[2]
    assert reused == [True, True]
    assert results[0][3][1].dropped  # some rows are too long
    assert len(list(folder.glob("*/entry.json"))) == 3


def test_rows_and_ids_are_those_of_a_slow_way(folder, make_tokenizer):
    write(pairs())
    split = load_comparisons(recipe_of())
    usable = [row for row in pairs() if row["chosen"] != row["rejected"]]
    train = [row for row in usable if position(prompt_key(row["prompt"])) >= 0.1]
    assert split.train["prompt"][:] == [row["prompt"] for row in train]
    tokenizer = make_tokenizer()

    def ids(text):
        return tokenizer(text)["input_ids"]

    encoded = encode_comparisons(split.train, Formatter(tokenizer), 10_000).dataset
    assert encoded["rejected_ids"][:] == [
        [*ids(row["prompt"] + row["rejected"]), tokenizer.eos_token_id] for row in train
    ]
    assert encoded["margin"][:] == [row.get("margin") for row in train]


def test_a_change_of_the_file_the_tokenizer_or_a_limit_is_encoded_anew(folder, make_tokenizer):
    formatter = Formatter(make_tokenizer())

    def reused(rows, formatter=formatter, limit=400):
        write(rows)
        train = load_comparisons(recipe_of()).train
        return encode_comparisons(train, formatter, limit).reused

    rows = pairs()
    assert not reused(rows)
    assert reused(rows)
    assert not reused(rows, limit=399)
    assert not reused(rows, Formatter(make_tokenizer(bos=True)))
    assert not reused([*rows[:-1], rows[-1] | {"chosen": " Perhaps."}])
    assert reused(rows)


def test_merges_count_for_the_formatter_although_the_vocabulary_is_the_same(make_tokenizer):
    one, other = make_tokenizer(), make_tokenizer(space=True)
    assert one.get_vocab() == other.get_vocab()
    assert formatter_digest(Formatter(one)) != formatter_digest(Formatter(other))
    before = formatter_digest(Formatter(one))
    one("abc", padding="max_length", max_length=9, truncation=True)
    assert formatter_digest(Formatter(one)) == before


def test_rows_have_one_digest_however_they_are_cut_and_another_in_another_order():
    rows = [{"prompt": f"{n}", "margin": None if n % 3 else 1.0} for n in range(50)]
    whole = Dataset.from_list(rows)
    cut = Dataset.from_list([{"prompt": "x", "margin": 1.0}, *rows]).select(range(1, 51))
    assert rows_digest(whole) == rows_digest(cut)
    assert rows_digest(whole) != rows_digest(whole.select(range(49, -1, -1)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "has changed"),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "has changed"),
        (lambda file: file.unlink(), "No such file"),
        (lambda file: (file.parent / "entry.json").write_text("{"), "entry.json cannot be read"),
        (lambda file: (file.parent / "entry.json").write_text("[1]"), "entry.json cannot be read"),
    ],
)
def test_a_damaged_entry_is_said_and_made_again(folder, damage, reason):
    write(pairs())
    rows = load_comparisons(recipe_of()).train.to_list()
    (part,) = folder.glob("*/part-00000.arrow")
    damage(part)
    said = Said()
    assert load_comparisons(recipe_of(), said).train.to_list() == rows
    (note,) = said.notes
    assert reason in note
    assert "encoded again" in note
    said = Said()
    load_comparisons(recipe_of(), said)
    assert said.notes == []
    assert said.phases == []  # nothing is read again


def test_without_a_folder_that_can_be_written_rows_are_made_in_memory(
    tmp_path, folder, monkeypatch
):
    write(pairs())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    said = Said()
    split = load_comparisons(recipe_of(), said)
    assert len(split.train) + len(split.held_out) == ROWS - 1
    (note,) = said.notes
    assert "nothing is stored" in note
    assert cache.VARIABLE in note


def test_a_full_disk_is_said_and_leaves_nothing(folder, monkeypatch):
    write(pairs())

    said = Said()

    class Full(PartWriter):
        def add(self, table):
            if self._folder is not None:
                raise CannotStoreError("No space left on device")
            super().add(table)

    monkeypatch.setattr(cache, "PartWriter", Full)
    assert len(load_comparisons(recipe_of(), said).train)
    assert "No space left on device" in said.notes[0]
    assert [item.suffix for item in folder.iterdir()] == [".lock"]


def test_an_error_of_the_data_leaves_no_entry(folder):
    write([{"prompt": "a", "chosen": " b", "rejected": " c"}, {"prompt": "a"}])
    with open("x.jsonl", "a") as file:  # noqa: PTH123
        file.write("{broken\n")
    with pytest.raises(Exception, match="not JSON"):
        load_comparisons(recipe_of())
    assert [item.suffix for item in folder.iterdir()] == [".lock"]


def _make_slowly(folder, results):
    os.environ[cache.VARIABLE] = folder
    said = Said()

    def make(parts):
        time.sleep(0.3)
        parts.add(Dataset.from_list([{"made_by": os.getpid()}]).data.table)
        return {}

    entry = cache.stored("k", make, said)
    results.put((entry.rows[0]["made_by"], entry.reused))


def test_two_processes_at_once_make_one_entry(tmp_path):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    both = [fork.Process(target=_make_slowly, args=(str(tmp_path), results)) for _ in range(2)]
    for process in both:
        process.start()
    (one, two) = (results.get(timeout=60) for _ in both)
    for process in both:
        process.join()
    assert one[0] == two[0]
    assert sorted([one[1], two[1]]) == [False, True]


def test_clean_removes_entries_but_those_used_lately(folder):
    write(pairs())
    load_comparisons(recipe_of())
    assert cache.clean(unused_days=1.0).entries == 0
    cleaned = cache.clean()
    assert cleaned.entries == 1
    assert cleaned.bytes > 1000
    assert list(folder.iterdir()) == []
    assert cache.clean() == cache.Cleaned(0, 0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RLHFCTL_CACHE": "/x"}, "/x/data"),
        ({"XDG_CACHE_HOME": "/y"}, "/y/rlhfctl/data"),
        ({"HOME": "/h"}, "/h/.cache/rlhfctl/data"),
        ({"HOME": "/h", "XDG_CACHE_HOME": "relative"}, "/h/.cache/rlhfctl/data"),
        ({"RLHFCTL_CACHE": ""}, "None"),
    ],
)
def test_the_folder_follows_the_environment(environment, expected, monkeypatch):
    for name in ("RLHFCTL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache.cache_folder()) == expected


def test_several_processes_answer_in_the_order_of_the_items():
    items = [f"question {n}" for n in range(30)]
    assert list(in_order(position, items, 2)) == [position(item) for item in items]


def test_an_encoder_in_another_process_is_the_same(make_tokenizer):
    encoder = Encoder(Formatter(make_tokenizer()), "comparisons", 30)
    table = Dataset.from_list([row | {"margin": None} for row in pairs()]).data.table
    here, there = encoder(table), pickle.loads(pickle.dumps(encoder))(table)
    assert here.table.to_pylist() == there.table.to_pylist()
    assert here.too_long == there.too_long > 0


def test_large_sets_have_a_bar(folder, make_tokenizer, monkeypatch):
    monkeypatch.setattr(formatting, "FEWEST_STORED", 10)
    write(pairs())
    said = Said()
    train = load_comparisons(recipe_of(), said).train
    encode_comparisons(train, Formatter(make_tokenizer()), 400, progress=said)
    assert said.phases == ["comparisons: reading 100 %", f"comparisons: encoding {len(train)} rows"]
    assert said.done == len(train)


def test_a_key_depends_on_every_value():
    assert digest_of({"a": 1}) != digest_of({"a": 2}) != digest_of({"b": 2})
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
