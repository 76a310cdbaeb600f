import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhfctl.data.subsets import read_subsets
from rlhfctl.errors import DataError

ROW = {"subset": "donotanswer", "prompt": "Why?", "chosen": "So.", "rejected": "No."}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_text_stays_text_or_becomes_a_conversation(tmp_path):
    source = write(tmp_path / "x.jsonl", [ROW | {"id": 3}])
    assert read_subsets(source, messages=False).rows == [ROW]
    assert read_subsets(source, messages=True).rows == [
        {
            "subset": "donotanswer",
            "prompt": [{"role": "user", "content": "Why?"}],
            "chosen": [{"role": "assistant", "content": "So."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        }
    ]


def test_a_parquet_file_reads_alike(tmp_path):
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "x.parquet")
    assert read_subsets(str(tmp_path / "x.parquet"), messages=False).rows == [ROW]


def test_rows_that_cannot_be_used_are_counted(tmp_path):
    bad = [ROW | {"subset": None}, ROW | {"chosen": ""}, ROW | {"rejected": "So."}]
    talk = ROW | {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    source = write(tmp_path / "x.jsonl", [ROW, *bad, talk])
    assert read_subsets(source, messages=False).report.dropped == {
        "subset is missing": 1,
        "empty response": 1,
        "chosen equals rejected": 1,
        "messages, where the reward model reads text": 1,
    }
    assert len(read_subsets(source, messages=True).rows) == 2
    assert len(read_subsets(source, messages=True, limit=1).rows) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "the column subset is missing"),
        ([{"question": "a"}], "the columns subset, prompt, chosen, rejected are missing"),
        ([ROW | {"chosen": ""}], "no row is left; 1 of 1 rows cannot be used: 1 empty response"),
        ([], "the file is empty"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, rows, said):
    with pytest.raises(DataError) as caught:
        read_subsets(write(tmp_path / "x.jsonl", rows), messages=False)
    assert said in caught.value.what
