"""Local files: every kind is read alike, and what is broken is named by file and line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from rlhfctl.data.files import is_local, read_local
from rlhfctl.data.parquet_files import ParquetRows
from rlhfctl.errors import DataError, UnsafeError

ROWS = [{"prompt": "NA", "completion": " é"}, {"prompt": "b\nb", "completion": "null"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(source, split="train"):
    raw = read_local(source, split)
    return [dict(row) for row in raw.rows]


def _zstd(name):
    with pa.CompressedOutputStream(pa.OSFile(name, "wb"), "zstd") as stream:
        stream.write(LINES.encode())


def _parquet(name):
    pq.write_table(pa.Table.from_pylist(ROWS), name)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.jsonl", lambda name: Path(name).write_text(LINES)),
        ("x.ndjson", lambda name: Path(name).write_text("\ufeff" + LINES + "\n \n")),
        ("x.json", lambda name: Path(name).write_text(json.dumps(ROWS, indent=1))),
        ("y.json", lambda name: Path(name).write_text(LINES)),
        ("x.jsonl.gz", lambda name: Path(name).write_bytes(gzip.compress(LINES.encode(), mtime=0))),
        ("x.json.gz", lambda name: Path(name).write_bytes(gzip.compress(LINES.encode(), mtime=0))),
        ("X.JSONL", lambda name: Path(name).write_text(LINES)),
        ("x.Json", lambda name: Path(name).write_text(json.dumps(ROWS))),
        ("x.jsonl", lambda name: Path(name).write_text(json.dumps(ROWS))),
        ("x.jsonl", lambda name: Path(name).write_bytes(LINES.replace("\n", "\r").encode())),
        ("x.jsonl.bz2", lambda name: Path(name).write_bytes(bz2.compress(LINES.encode()))),
        ("x.JSONL.XZ", lambda name: Path(name).write_bytes(lzma.compress(LINES.encode()))),
        ("x.jsonl.zst", _zstd),
        ("x.jsonl.gz", lambda name: Path(name).write_text(LINES)),
        ("x.jsonl", lambda name: Path(name).write_bytes(gzip.compress(LINES.encode(), mtime=0))),
        ("x.csv", lambda name: Path(name).write_text('prompt;completion\nNA; é\n"b\nb";null\n')),
        ("x.csv", lambda name: Path(name).write_text('prompt|completion\nNA| é\n"b\nb"|null\n')),
        ("x.csv", lambda name: Path(name).write_text(' prompt ,"completion "\nNA, é\n"b\nb",null')),
        ("x.TSV", lambda name: Path(name).write_text('prompt\tcompletion\nNA\t é\n"b\nb"\tnull')),
        (
            "x.csv",
            lambda name: Path(name).write_bytes('prompt,completion\rNA, é\r"b\nb",null\r'.encode()),
        ),
        ("x.Parquet", _parquet),
        ("x.jsonl", _parquet),
        (
            "x.csv",
            lambda name: Path(name).write_text('prompt,completion\nNA, é\n"b\nb",null\n'),
        ),
        ("x.parquet", _parquet),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(name, write):
    write(name)
    assert rows_of(name) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", LINES + "{broken}\n", "x.jsonl:3: not JSON: Expecting property name"),
        ("x.jsonl", LINES[:-4], "x.jsonl:2: not JSON: Unterminated string"),
        ("x.jsonl", "", "x.jsonl: the file is empty"),
        ("x.jsonl", "\n\n", "x.jsonl: the file is empty"),
        ("x.jsonl", LINES + "[1]\n", "x.jsonl:3: not a JSON object"),
        ("x.jsonl", LINES.encode() + b'{"a": "\xe9"}', "x.jsonl:3: not UTF-8 text (byte 0xe9)"),
        ("x.jsonl", "[" * 100_000, "x.jsonl:1: nested too deeply"),
        ("x.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], "x.jsonl.gz:"),
        ("x.jsonl", b"PK\x03\x04...", "x.jsonl: the file is a zip archive or an Excel workbook"),
        ("x.zip", b"PK", "x.zip: unsupported file type"),
        ("x.json", '{"data": [\n{"a": 1}]}', "x.json: the file is one JSON object, not an array"),
        ("x.csv", "prompt;completion\n1;2;3\n", "x.csv:2: 3 cells under 2 columns\nthe cells seem"),
        ("x.json", '[\n{"a": 1},\n{"a": 1', "x.json:3: not JSON"),
        ("x.json", "[]", "x.json: the file is empty"),
        ("x.json", '[{"a": 1}, 2]', "x.json:row 2: not a JSON object"),
        ("x.json", b'[\n{"a": "\xe9"}]', "x.json:2: not UTF-8 text"),
        ("x.csv", "", "x.csv: the file is empty"),
        ("x.csv", "a,b\n", "x.csv: the file is empty"),
        ("x.csv", "a,b\n1,2\n3\n4,5,6\n", "x.csv:3: 1 cells under 2 columns\nx.csv:4: 3 cells"),
        ("x.csv", 'a,b\n1,"2', "x.csv:2: not CSV: unexpected end of data"),
        ("x.csv", "a,a\n1,2\n", "x.csv:1: two columns have the same name"),
        ("x.csv", b"a,b\n1,\xe9\n", "x.csv:2: not UTF-8 text"),
        ("x.parquet", b"PAR1 and nothing more", "x.parquet: damaged, or not a Parquet file"),
        ("x.xlsx", b"PK", "x.xlsx: unsupported file type"),
    ],
)
def test_what_is_broken_is_named_by_file_and_line(name, content, said):
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_local(name, "train")
    assert str(caught.value).startswith(said)


def test_the_first_five_broken_lines_are_shown_and_all_counted():
    Path("x.jsonl").write_text(LINES + "{\n" * 9)
    with pytest.raises(DataError) as caught:
        read_local("x.jsonl", "train")
    lines = str(caught.value).splitlines()
    assert lines[4].startswith("x.jsonl:7: ")
    assert lines[5] == "and 4 more broken lines"


def test_rows_know_the_line_they_stand_on():
    Path("x.jsonl").write_text("\n" + LINES)
    Path("x.csv").write_text('a,b\n"1\n1",2\n\n3,4\n')
    jsonl, csv = read_local("x.jsonl", "train"), read_local("x.csv", "train")
    assert [jsonl.place(row) for row in range(2)] == ["x.jsonl:2", "x.jsonl:3"]
    assert [csv.place(row) for row in range(2)] == ["x.csv:2", "x.csv:5"]


class TestParquet:
    ODD: ClassVar = {
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
        "decimal": pa.array([Decimal("1.5"), None], pa.decimal128(5, 2)),
        "time": pa.array([0, 1], pa.timestamp("ns", "UTC")),
        "half": pa.array([0.5, None], pa.float32()),
    }

    @pytest.mark.parametrize("kind", ["map", "decimal", "time", "half"])
    def test_columns_that_nobody_reads_may_have_any_type(self, kind):
        text = pa.array(["a", "b"]).dictionary_encode()
        pq.write_table(pa.table({"text": text, "odd": self.ODD[kind]}), "x.parquet")
        raw = read_local("x.parquet", "train").only(["text"])
        assert [dict(row) for row in raw.rows] == [{"text": "a"}, {"text": "b"}]
        assert raw.columns == ("text",)

    def test_only_the_columns_that_are_read_are_loaded(self, monkeypatch):
        pq.write_table(pa.table({"text": ["a"], "big": ["b"]}), "x.parquet")
        batches, loaded = pq.ParquetFile.iter_batches, []

        def seen(self, columns=None, **rest):
            loaded.append(columns)
            return batches(self, columns=columns, **rest)

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", seen)
        assert list(read_local("x.parquet", "train").only(["text"]).rows) == [{"text": "a"}]
        assert loaded == [["text"]]

    def test_rows_are_taken_by_number(self):
        pq.write_table(pa.table({"a": range(5)}), "x.parquet")
        rows = read_local("x.parquet", "train").rows
        assert (rows[3], rows[-1], rows[1:3]) == ({"a": 3}, {"a": 4}, [{"a": 1}, {"a": 2}])
        assert isinstance(rows, ParquetRows)
        assert list(rows.select([4, 0, 2]).select([1, 2])) == [{"a": 0}, {"a": 2}]

    def test_files_of_a_folder_may_have_different_columns(self):
        Path("d").mkdir()
        pq.write_table(pa.table({"a": [1], "b": [2]}), "d/1.parquet")
        Path("d/2.jsonl").write_text('{"a": 3}\n{"a": 4}\n')
        raw = read_local("d", "train").only(["a"])
        assert [row["a"] for row in raw.rows] == [1, 3, 4]
        assert (raw.rows[2]["a"], raw.place(0), raw.place(2)) == (
            4,
            "d/1.parquet:row 1",
            "d/2.jsonl:2",
        )


def test_a_column_may_begin_in_a_later_row():
    Path("x.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    assert read_local("x.jsonl", "train").columns == ("a", "b")


class TestFolders:
    def test_the_files_of_the_split_are_read_in_order(self):
        Path("d").mkdir()
        for name in ("train-1.jsonl", "train-0.jsonl", "test.jsonl"):
            Path("d", name).write_text(json.dumps({"name": name}) + "\n")
        assert [row["name"] for row in rows_of("d")] == ["train-0.jsonl", "train-1.jsonl"]
        assert [row["name"] for row in rows_of("d", "test")] == ["test.jsonl"]

    def test_files_without_a_split_are_all_for_training(self):
        Path("d").mkdir()
        for name in ("a.jsonl", "b.csv"):
            Path("d", name).write_text("a\n1\n" if name.endswith("csv") else '{"a": "0"}')
        assert rows_of("d") == [{"a": "0"}, {"a": "1"}]
        assert read_local("d", "train").place(1) == "d/b.csv:2"
        with pytest.raises(DataError, match=r"no file of split test; the folder holds a\.jsonl"):
            read_local("d", "test")

    @pytest.mark.parametrize(
        "noise",
        [
            ".ipynb_checkpoints/pairs-checkpoint.jsonl",
            ".cache/huggingface/pairs.jsonl",
            "__MACOSX/._pairs.jsonl",
            "~$pairs.csv",
            "._pairs.jsonl",
            "pairs.jsonl~",
            "#pairs.jsonl#",
            "dataset_infos.json",
            "README.md",
        ],
    )
    def test_hidden_copies_backups_and_metadata_are_no_data(self, noise):
        for name in (noise, "pairs.jsonl"):
            Path("d", name).parent.mkdir(parents=True, exist_ok=True)
            Path("d", name).write_text(json.dumps({"name": name}) + "\n")
        assert rows_of("d") == [{"name": "pairs.jsonl"}]
        assert rows_of("d/*pairs.jsonl*") == [{"name": "pairs.jsonl"}]

    def test_files_of_other_splits_are_left_out_and_said(self):
        for name in ("pairs.jsonl", "pairs_test.jsonl", "dev/more.jsonl", "contest.jsonl"):
            Path("d", name).parent.mkdir(parents=True, exist_ok=True)
            Path("d", name).write_text(json.dumps({"name": name}) + "\n")
        raw = read_local("d", "train")
        assert [row["name"] for row in raw.rows] == ["contest.jsonl", "pairs.jsonl"]
        said = "files of other splits are left out: more.jsonl, pairs_test.jsonl"
        assert raw.notes == ("2 files", said)
        assert rows_of("d", "test") == [{"name": "pairs_test.jsonl"}]
        assert rows_of("d", "validation") == [{"name": "dev/more.jsonl"}]

    def test_a_folder_with_another_split_only_names_it(self):
        Path("d").mkdir()
        Path("d/test.jsonl").write_text(LINES)
        with pytest.raises(
            DataError, match=r"no file of split train; the folder holds test\.jsonl"
        ):
            read_local("d", "train")

    def test_one_name_in_two_formats_is_refused(self):
        Path("d").mkdir()
        Path("d/a.jsonl").write_text(LINES)
        Path("d/a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
        with pytest.raises(
            DataError, match=r"a\.jsonl and a\.jsonl\.gz are probably the same rows"
        ):
            read_local("d", "train")

    def test_a_pattern_names_several_files(self):
        for name in ("a1.jsonl", "a2.jsonl", "b.jsonl"):
            Path(name).write_text(json.dumps({"name": name}))
        assert [row["name"] for row in rows_of("a*.jsonl")] == ["a1.jsonl", "a2.jsonl"]

    def test_an_empty_folder_is_an_error(self):
        Path("d").mkdir()
        with pytest.raises(DataError, match="holds no"):
            read_local("d", "train")

    def test_a_saved_data_set_is_read(self):
        Dataset.from_list(ROWS).save_to_disk("one")
        DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk("several")
        assert rows_of("one") == rows_of("several") == ROWS
        with pytest.raises(DataError, match="there is no split test; found: train"):
            read_local("several", "test")

    def test_a_damaged_saved_data_set_is_an_error(self):
        Dataset.from_list(ROWS).save_to_disk("one")
        Path("one/state.json").write_text("{")
        with pytest.raises(DataError, match="damaged"):
            read_local("one", "train")


class TestNames:
    @pytest.mark.parametrize(
        "name", ["x.jsonl", "./x", "/x/y", "~/x", "a/b/c", "d*", "a/b.csv", "/" + "x" * 5000]
    )
    def test_what_can_only_be_a_path_is_one(self, name):
        assert is_local(name)
        with pytest.raises(DataError, match="no such file"):
            read_local(name, "train")

    @pytest.mark.parametrize("name", ["squad", "Anthropic/hh-rlhf", "trl-lib/tldr"])
    def test_a_hub_id_is_none(self, name):
        assert not is_local(name)

    def test_a_folder_that_exists_is_meant_before_a_hub_id(self):
        Path("me/data").mkdir(parents=True)
        assert is_local("me/data")

    @pytest.mark.parametrize("name", ["x.py", "me/script.py"])
    def test_scripts_are_refused(self, name):
        with pytest.raises(UnsafeError):
            is_local(name)

    def test_a_folder_with_only_a_script_is_refused(self):
        Path("d").mkdir()
        Path("d/d.py").write_text("raise SystemExit")
        with pytest.raises(UnsafeError):
            read_local("d", "train")
