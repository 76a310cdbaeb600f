"""Streamed sources: the rows, splits and names of entries that they have when they are read whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rlhfctl.data import cache, files, stored_rows
from rlhfctl.data.sources import load_comparisons, load_prompts, preview
from rlhfctl.data.streamed_rows import FirstRows
from rlhfctl.errors import DataError, EnvironmentFault
from rlhfctl.recipe.data import DatasetSection
from rlhfctl.recipe.schema import Recipe
from tests.hub_server import COMMIT

PAIRS = [
    {"prompt": f"Question {n}?", "chosen": " No." if n == 7 else " Yes.", "rejected": " No."}
    for n in range(30)
]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(stored_rows, "FEWEST_BYTES_STORED", 0)
    monkeypatch.chdir(tmp_path)


def recipe_of(source, kind="comparisons", **keys):
    section = {"source": source, **keys}
    return Recipe.model_validate({"data": {"max_bad_fraction": 1.0, kind: section}})


def _lines(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _table(name, rows):
    pq.write_table(pa.Table.from_pylist(rows), name)


def _csv(name, rows):
    Path(name).write_text("\n".join([",".join(rows[0]), *(",".join(r.values()) for r in rows)]))


def _folder(name, rows):
    Path(name).mkdir()
    _lines(f"{name}/a.jsonl", rows[:20])
    _table(f"{name}/b.parquet", rows[20:])


def _entries():
    folder = cache.cache_folder()
    assert folder is not None
    return sorted(folder.glob("*/entry.json"))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.jsonl", _lines),
        ("x.json", lambda name, rows: Path(name).write_text(json.dumps(rows))),
        ("x.csv", _csv),
        ("x.parquet", _table),
        ("folder", _folder),
    ],
)
def test_local_rows_counts_and_entry_are_those_of_reading_whole(name, write):
    write(name, PAIRS)
    whole = load_comparisons(recipe_of(name))
    entries = _entries()
    cache.clean()
    streamed = load_comparisons(recipe_of(name, streaming=True))
    for part in ("train", "held_out"):
        one, other = getattr(whole, part), getattr(streamed, part)
        assert one._fingerprint == other._fingerprint
        assert one.to_list() == other.to_list()
    assert whole.report == streamed.report
    assert streamed.report.dropped == {"chosen equals rejected": 1}
    assert _entries() == entries


def test_max_rows_are_the_first_ones_and_nothing_is_read_beyond():
    _lines("x.jsonl", PAIRS * 40)  # the form is found by the first thousand
    with Path("x.jsonl").open("a") as file:
        file.write("{broken\n")
    split = load_comparisons(recipe_of("x.jsonl", streaming=True, max_rows=9))
    read = sorted([*split.train["prompt"], *split.held_out["prompt"]])
    assert read == [row["prompt"] for row in PAIRS[:9] if row["chosen"] != row["rejected"]]
    assert split.report.read == 9
    assert split.report.notes == ("streaming: the first 9 rows, none drawn at random",)
    with pytest.raises(DataError, match=r"x\.jsonl:1201: not JSON"):
        load_comparisons(recipe_of("x.jsonl", streaming=True))


def test_a_small_streamed_file_is_not_in_memory():
    _lines("x.jsonl", PAIRS)
    assert isinstance(files.read_local("x.jsonl", "train").rows, tuple)
    rows = files.read_local("x.jsonl", "train", streaming=True).rows
    assert not isinstance(rows, tuple)
    first = FirstRows(rows, 4)
    assert [len(first), first[3]["prompt"], first[-1]] == [4, "Question 3?", PAIRS[3]]
    assert [row["prompt"] for row in first.select([2, 0])] == ["Question 2?", "Question 0?"]
    with pytest.raises(IndexError):
        first[4]


TREE = [{"message_id": "1", "parent_id": None, "role": "prompter", "text": "Why?"}]


@pytest.mark.parametrize(
    ("name", "write", "kind", "said"),
    [
        ("x.jsonl", lambda name: _lines(name, TREE), "prompts", "rows of form oasst depend"),
        (
            "x.jsonl",
            lambda name: _lines(
                name, [{"prompt": "a", "completion": "b", "label": bool(n % 2)} for n in range(9)]
            ),
            "comparisons",
            "rows of form kto depend",
        ),
        (
            "x.parquet",
            lambda name: [
                _table(name, PAIRS),
                Path(name).write_bytes(gzip.compress(Path(name).read_bytes())),
            ],
            "comparisons",
            "decompressed in memory as a whole",
        ),
    ],
)
def test_what_is_read_at_once_is_refused_before_and_when_a_stage_starts(name, write, kind, said):
    write(name)
    recipe = recipe_of(name, kind, streaming=True)
    load = load_prompts if kind == "prompts" else load_comparisons
    with pytest.raises(DataError, match=said):
        preview(getattr(recipe.data, kind), kind)
    with pytest.raises(DataError, match=said):
        load(recipe)


def test_a_hub_data_set_of_such_a_preset_is_refused_without_the_hub():
    section = DatasetSection(source="org/trees", preset="oasst", streaming=True)
    with pytest.raises(DataError, match="org/trees: cannot be streamed: rows of form oasst"):
        preview(section, "comparisons")
    plain = DatasetSection(source="org/trees", preset="hh_rlhf", streaming=True)
    assert preview(plain, "comparisons") is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"streaming": True}, "streaming needs a source of its own"),
        ({"source": "org/a", "split": "train[:10%]", "streaming": True}, "is a slice"),
        ({"sources": [{"source": "embedded", "streaming": True}]}, "streaming needs a source"),
    ],
)
def test_recipes_that_cannot_be_streamed_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        DatasetSection.model_validate(keys)


def test_without_a_cache_nothing_is_streamed(tmp_path, monkeypatch):
    _lines("x.jsonl", PAIRS)
    recipe = recipe_of("x.jsonl", streaming=True)
    monkeypatch.setenv(cache.VARIABLE, "")
    with pytest.raises(EnvironmentFault, match="in the cache, and RLHFCTL_CACHE is empty"):
        load_comparisons(recipe)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(EnvironmentFault, match="it cannot be written"):
        load_comparisons(recipe)
    assert len(load_comparisons(recipe_of("x.jsonl")).train)


HUB = """
from pathlib import Path
from rlhfctl.data import cache, stored_rows
from rlhfctl.data.sources import load_comparisons, raw_prompts
from rlhfctl.recipe.schema import Recipe
stored_rows._FEWEST_HUB_ROWS = 0
def load(**keys):
    data = {name: {"source": "org/pairs"} | keys for name in ("comparisons", "prompts")}
    return Recipe.model_validate({"data": data})
def rows(**keys):
    cache.clean()
    split = load_comparisons(load(**keys))
    parts = [(part._fingerprint, part.to_list()) for part in (split.train, split.held_out)]
    return parts, split.report
def files(home):
    return sorted(path.name for path in Path(home).rglob("*") if "train" in path.name)
"""


def test_a_hub_data_set_is_read_without_a_download(outcomes, tmp_path):
    home = str(tmp_path / "home")
    cases = {
        "rows(streaming=True)": ("", "What is 39 plus 1?"),
        f"rows(streaming=True, revision={COMMIT!r})": ("", "What is 39 plus 1?"),
        "rows(streaming=True, max_rows=5)[1]": ("", "read=5, usable=5"),
        "raw_prompts(load(streaming=True, max_rows=3)).rows[2]['prompt']": ("", "What is 2 plus 1"),
        "rows(streaming=True, split='nope')": ("DataError", "no split nope"),
        "rows(streaming=True, config='nope')": ("DataError", "no configuration nope"),
        "rows(source='org/none', streaming=True)": ("EnvironmentFault", "no such data set"),
        "rows(source='org/broken', streaming=True)": ("DataError", "org/broken: cannot be read"),
        f"files({home!r})": ("", "[]"),
        "rows()": ("", "What is 39 plus 1?"),
    }
    variables = {"HF_HOME": home, cache.VARIABLE: str(tmp_path / "cache")}
    found = outcomes(HUB, list(cases), **variables)
    for call, one in zip(cases, found, strict=True):
        assert one[0] == cases[call][0], (call, one)
        assert cases[call][1] in one[1], (call, one)
    assert found[0] == found[1] == found[-1]


def test_rows_of_a_commit_are_found_in_the_cache_without_the_hub():
    def key(**keys):
        parts = recipe_of("org/pairs", streaming=True, **keys).data.comparisons.parts
        return stored_rows.rows_key(parts, "comparisons", 0, margins=False)

    assert key(revision=COMMIT) == key(revision=COMMIT)
    assert key(revision=COMMIT) != key(revision="f" * 40)
    with pytest.raises(EnvironmentFault, match="HF_HUB_OFFLINE is set"):
        key(revision="main")
