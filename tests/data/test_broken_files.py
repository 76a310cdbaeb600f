"""A corpus of broken data files: each is refused with its line and reason, and no row is lost unseen."""

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhfctl.data.parquet_files import read_parquet
from rlhfctl.data.sources import load_comparisons, load_demonstrations, load_prompts
from rlhfctl.errors import DataError, UnsafeError
from rlhfctl.recipe.schema import Recipe

LOADERS = {
    "demonstrations": load_demonstrations,
    "comparisons": load_comparisons,
    "prompts": load_prompts,
}
DEMO = '{"prompt": "a?", "completion": "b."}\n'
PAIR = '{"prompt": "a?", "chosen": "b.", "rejected": "c."}\n'
DEMONSTRATIONS = [
    (
        "x.jsonl",
        b'{"system": "s", "conversations": 1.5}\n',
        (
            "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): "
            "1 conversations is missing, or no list (first: x.jsonl:1)"
        ),
    ),
    ("x.jsonl", b"", "x.jsonl: the file is empty"),
    ("x.jsonl", b"\n \n", "x.jsonl: the file is empty"),
    (
        "x.jsonl",
        b"\xef\xbb\xbf",
        "x.jsonl:1: not JSON: ",
    ),
    (
        "x.jsonl",
        (DEMO + "{broken}\n").encode(),
        "x.jsonl:2: not JSON: ",
    ),
    (
        "x.jsonl",
        (DEMO + DEMO)[:-5].encode(),
        "x.jsonl:2: not JSON: ",
    ),
    (
        "x.jsonl",
        DEMO.encode() + b'{"prompt": "\xe9"}\n',
        "x.jsonl:2: not UTF-8 text (byte 0xe9); save the file as UTF-8",
    ),
    (
        "x.jsonl",
        (DEMO + DEMO).encode("utf-16"),
        "x.jsonl:1: not UTF-8 text (byte 0xff); save the file as UTF-8",
    ),
    (
        "x.jsonl",
        (DEMO + "[1]\n").encode(),
        "x.jsonl:2: not a JSON object ({...}) with a value for each column",
    ),
    (
        "x.jsonl",
        (DEMO + "3\n").encode(),
        "x.jsonl:2: not a JSON object ({...}) with a value for each column",
    ),
    (
        "x.jsonl",
        (DEMO + "null\n").encode(),
        "x.jsonl:2: not a JSON object ({...}) with a value for each column",
    ),
    (
        "x.jsonl",
        (DEMO + DEMO.strip() + DEMO).encode(),
        "x.jsonl:2: not JSON: ",
    ),
    (
        "x.jsonl",
        (DEMO + "{'prompt': 'a'}\n").encode(),
        "x.jsonl:2: not JSON: ",
    ),
    (
        "x.jsonl",
        (DEMO + '{"prompt": "a",}\n').encode(),
        "x.jsonl:2: not JSON: ",
    ),
    (
        "x.jsonl",
        DEMO.encode() + b"[" * 3000 + b"\n",
        "x.jsonl:2: nested too deeply, more than 128 levels",
    ),
    (
        "x.jsonl",
        DEMO.encode() + b"[" * 3000 + b"]" * 3000 + b"\n",
        "x.jsonl:2: nested too deeply, more than 128 levels",
    ),
    (
        "x.jsonl",
        (DEMO + '{"prompt": ' + "1" * 5000 + "}\n").encode(),
        "x.jsonl:2: a number has thousands of digits",
    ),
    (
        "x.jsonl",
        DEMO.encode() + b"\x00\x00\x00\n",
        "x.jsonl:2: not JSON: ",
    ),
    ("x.jsonl", (DEMO + "<html>\n").encode(), "x.jsonl:2: not JSON: "),
    (
        "x.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
        "x.jsonl:1: not JSON: ",
    ),
    (
        "x.jsonl",
        b'{\n"prompt": "a"\n}\n',
        "x.jsonl:1: not JSON: ",
    ),
    ("x.jsonl", b"\x1f\x8b\x08\x00broken", "x.jsonl:1: the compressed file is damaged"),
    (
        "x.jsonl.gz",
        gzip.compress(DEMO.encode())[:-12],
        "x.jsonl.gz:1: the compressed file is damaged",
    ),
    ("x.jsonl.gz", b"plain", "x.jsonl.gz:1: not JSON: "),
    (
        "x.jsonl.bz2",
        bz2.compress(DEMO.encode())[:-6],
        "x.jsonl.bz2:1: the compressed file is damaged",
    ),
    (
        "x.jsonl.xz",
        lzma.compress(DEMO.encode())[:-6],
        "x.jsonl.xz:1: the compressed file is damaged",
    ),
    ("x.jsonl.xz", b"no", "x.jsonl.xz:1: not JSON: "),
    ("x.jsonl.zst", b"(\xb5/\xfd\x00", "x.jsonl.zst:1: the compressed file is damaged"),
    ("x.json", b"", "x.json: the file is empty"),
    ("x.json", b"[", "x.json:1: not JSON: "),
    ("x.json", b'[{"prompt": "a"}, 3]', "x.json:row 2: not a JSON object ({...})"),
    (
        "x.json",
        b'{\n"rows": [1]\n}\n',
        "x.json: the file is one JSON object, not an array of rows; its key rows has a list",
    ),
    ("x.json", b"[]", "x.json: the file is empty"),
    (
        "x.json",
        b'[\n{"prompt": "a"},\n{"prompt"}\n]',
        "x.json:3: not JSON: ",
    ),
    ("x.json", b"[" * 3000 + b"]" * 3000, "x.json: nested too deeply, more than 128 levels"),
    (
        "x.json",
        b'[{"prompt": "\xff"}]',
        "x.json:1: not UTF-8 text (byte 0xff); save the file as UTF-8",
    ),
    ("x.json", b"3", "x.json:1: not a JSON object ({...}) with a value for each column"),
    ("x.csv", b"", "x.csv: the file is empty"),
    ("x.csv", b"prompt,completion\n", "x.csv: the file is empty"),
    ("x.csv", b"prompt,completion\na,b,c\n", "x.csv:2: 3 cells under 2 columns"),
    ("x.csv", b"prompt,completion\na\n", "x.csv:2: 1 cells under 2 columns"),
    ("x.csv", b'prompt,completion\na,"b\n', "x.csv:2: not CSV: unexpected end of data"),
    ("x.csv", b"prompt,prompt\na,b\n", "x.csv:1: two columns have the same name"),
    ("x.csv", b"prompt,\na,b\n", "x.csv: demonstrations need the columns prompt + completion"),
    (
        "x.csv",
        b"prompt,completion\na,\xff\n",
        "x.csv:2: not UTF-8 text (byte 0xff); save the file as UTF-8",
    ),
    (
        "x.tsv",
        b"prompt completion\na b\n",
        "x.tsv: demonstrations need the columns prompt + completion",
    ),
    ("x.parquet", b"", "x.parquet: damaged, or not a Parquet file"),
    ("x.parquet", b"PAR1", "x.parquet: damaged, or not a Parquet file"),
    ("x.parquet", b"PAR1" + b"\x00" * 50 + b"PAR1", "x.parquet: cannot be read"),
    ("x.parquet", DEMO.encode(), "x.parquet: damaged, or not a Parquet file"),
    ("x.txt", b"hello", "x.txt: unsupported file type"),
    ("x.xlsx", b"PK\x03\x04", "x.xlsx: unsupported file type"),
    ("x.py", b"print(1)", "x.py: a data set must not be a script, which would run its code here"),
    ("x", b"hello", "x: unsupported file type"),
    (
        "x.jsonl",
        b'{"text": ""}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 empty response (first: x.jsonl:1)",
    ),
    ("x.jsonl", b'{"foo": "a"}\n', "x.jsonl: demonstrations need the columns prompt + completion"),
    (
        "x.jsonl",
        b'{"prompt": null, "completion": "b"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 prompt is missing (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"prompt": 3, "completion": "b"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 prompt is neither text nor messages (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"prompt": "a", "completion": " "}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 empty response (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"messages": []}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 no assistant turn (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"messages": [{"role": "user", "content": "a"}]}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 no assistant turn (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"messages": [{"role": "banana", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 unknown role (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"messages": "a"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 messages is neither text nor messages (first: x.jsonl:1)",
    ),
]
COMPARISONS = [
    (
        "x.jsonl",
        b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 chosen equals rejected (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"prompt": "a", "chosen": "b"}\n',
        "x.jsonl: comparisons need the columns prompt + chosen + rejected",
    ),
    ("x.jsonl", DEMO.encode(), "x.jsonl: comparisons need the columns prompt + chosen + rejected"),
    (
        "x.jsonl",
        b'{"prompt": "a", "chosen": "b", "rejected": null}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 rejected is missing (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        PAIR.encode() * 19 + b'{"prompt": "a", "chosen": "", "rejected": "c"}\n' * 2,
        "x.jsonl: 2 of 21 rows cannot be used (allowed: 5 %): 2 empty response (first: x.jsonl:20)",
    ),
    (
        "x.jsonl",
        b'{"chosen": "\\n\\nHuman: a", "rejected": "\\n\\nHuman: a"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 chosen equals rejected (first: x.jsonl:1)",
    ),
]
PROMPTS = [
    (
        "x.jsonl",
        b'{"prompt": ""}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 empty prompt (first: x.jsonl:1)",
    ),
    (
        "x.jsonl",
        b'{"prompt": "\\ud800?"}\n',
        "x.jsonl: no row is left; 1 of 1 rows cannot be used (allowed: 5 %): 1 prompt is not valid Unicode (first: x.jsonl:1)",
    ),
]

CASES = [
    *(("demonstrations", *case) for case in DEMONSTRATIONS),
    *(("comparisons", *case) for case in COMPARISONS),
    *(("prompts", *case) for case in PROMPTS),
]


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"),
    CASES,
    ids=[f"{n}-{case[1]}" for n, case in enumerate(CASES)],
)
def test_it_is_refused_with_its_line_and_reason(tmp_path, monkeypatch, kind, name, content, said):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    recipe = Recipe.model_validate({"data": {kind: {"source": name}}})
    with pytest.raises((DataError, UnsafeError)) as caught:
        LOADERS[kind](recipe)
    assert str(caught.value).startswith(said)


def test_a_changed_footer_of_a_parquet_file_is_told(tmp_path):
    """Names that are no UTF-8, and a number of rows below 0, come to light after opening."""
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"\u00e9t\u00e9": ["a"]}), path)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    told = []
    for place in range(footer, len(content) - 8):
        bit = 0x40 if content[place] == 0xC3 else 1
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            list(read_parquet(path).rows)
        except DataError as error:
            told.append(error.what)
        except OSError as error:
            told.append(str(error))
    assert any("can't decode byte" in what for what in told)
    assert any(what.endswith("-2 rows") for what in told)


def test_a_text_of_a_parquet_file_that_is_no_utf8_is_told(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"prompt": ["\u00e9"]}), path, use_dictionary=False, compression="none")
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\x83\xa9"))
    rows = read_parquet(path).rows
    for read in (list, lambda rows: rows[0]):
        with pytest.raises(DataError, match="can't decode byte 0x83"):
            read(rows)
