"""Feed damaged input to every reader and check that only errors for users come out.

    python scripts/fuzz.py                       # 100,000 cases
    python scripts/fuzz.py --cases 500 --seed 3 --only votes

Each case mutates a valid input at random: bytes, lines, or values of other types. An exception that
is no `RlhfctlError` is a fault; it is printed once per place with the numbers that repeat it. The
exit status is 1 if there is one.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhfctl.data.sources import preview
from rlhfctl.errors import RlhfctlError
from rlhfctl.human_votes import read_votes
from rlhfctl.recipe.keys import all_keys
from rlhfctl.recipe.load import load_recipe
from rlhfctl.recipe.schema import DatasetSection
from rlhfctl.results.evaluation import EvaluationResult
from rlhfctl.run.manifest import SCHEMA_VERSION, Artifact, Manifest, StageRecord
from rlhfctl.run.sealed import write_sealed
from rlhfctl.stages.evaluation.judge_endpoint import Answers, read_answer
from rlhfctl.stages.shared.http_post import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
KEYS = [".".join(path) for path in all_keys()]
DEEP = "[" * 3000 + "]" * 3000
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, float("nan"), 10**30, "", " ", "a", "\ud800", "é\0"),
    *([], {}, [[]], [None], {"a": {"b": []}}, ["user", "assistant"], {"role": 1, "content": []}),
    *(
        "[]",
        "{}",
        '[{"role": "user", "content": "x"}]',
        "\n\nHuman: a\n\nAssistant: b",
        "<|im_end|>",
    ),
)
"""Values of other types than a reader expects."""
PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\n",
        b"\r",
        b"[",
        b"{",
        b"}",
        b'"',
        b"'",
        b",",
        b":",
        b"\\u0000",
        b"\\ud800",
    ),
    *(
        b"- ",
        b"? ",
        b"&a ",
        b"*a ",
        b"!!python/object:os.system ",
        b"1e999",
        b"\xef\xbb\xbf",
        b"\t",
    ),
    *(b"\xe2\x80\xa8", b"null", b"NaN", DEEP.encode(), b"9" * 5000, b"#", b"|", b">", b"~", b"%"),
)
TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "Why?", "completion": "So.", "solution": 4},
    {"messages": TURNS, "tools": [{"name": "f"}]},
    {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": TURNS[1:], "margin": 1.0},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {
        "system": "s",
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "b", "weight": 0},
        ],
    },
    {"system_prompt": "s", "question": "a", "response": "b"},
    {"question": "a", "chosen": "It is b", "rejected": "It is c"},
    {"prompt": "a", "chosen": "ab", "rejected": "ac"},
    {"text": "### Human: a### Assistant: b"},
    {"instruction": "a", "input": "b", "output": "c"},
    {"prompt": "a", "completion": "b", "label": True},
    {"message_id": "1", "parent_id": None, "role": "prompter", "text": "a", "rank": 0},
    {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2], "scores": [0.1, 0.2]},
    {"question": "a", "annotator": "ann", "response_a": "b", "response_b": "c", "label": "a"},
)
RECORD = StageRecord(
    stage="sft",
    recipe_part={"seed": 1, "sft": {"init_from": None}},
    inputs={"data": Artifact("/x/rows.jsonl", "ab")},
    outputs={"sft": Artifact("sft", "cd")},
    metrics={"prompts": 3, "policies": {}, "version": 1},
    versions={"torch": "2"},
    seed=1,
    started="2026-01-01T00:00:00+00:00",
    seconds=1.5,
)
COMPLETION = {
    "choices": [{"message": {"content": "[[A]]", "refusal": None}, "finish_reason": "stop"}]
}
CACHE = b'{"key": "k", "reply": {"text": "gr\xc3\xb6\xc3\x9fer [[A]]", "refused": false}}\n' * 3


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few random changes."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 1, 2, 8, 50)))
        match rng.randrange(5):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + rng.choice(PIECES) + data[at:]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data[:at] + data[at:end] * rng.randint(2, 5) + data[end:]
            case _:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data


def altered(value: Any, rng: random.Random, chance: float = 0.2) -> Any:
    """Return a JSON value of which parts are replaced by values of other types, or are missing."""
    if rng.random() < chance:
        return rng.choice(ODD)
    if isinstance(value, dict):
        items = [(key, altered(item, rng, chance)) for key, item in value.items()]
        items = [item for item in items if rng.random() > chance / 4]
        return dict(items) | ({"extra": rng.choice(ODD)} if rng.random() < chance / 4 else {})
    return [altered(item, rng, chance) for item in value] if isinstance(value, list) else value


def as_json(value: Any) -> bytes:
    """Return JSON bytes; lone surrogates stay escapes."""
    return json.dumps(value).encode()


def recipes(folder: Path, rng: random.Random) -> None:
    """Load a damaged recipe file."""
    sources = [path.read_bytes() for path in sorted((ROOT / "recipes").glob("*.yaml"))]
    path = folder / "x.yaml"
    path.write_bytes(damaged(rng.choice(sources), rng))
    load_recipe(path)


def overrides(_folder: Path, rng: random.Random) -> None:
    """Load a recipe with an odd ``--set``."""
    key = rng.choice(KEYS)
    if rng.random() < 0.2:
        key = damaged(key.encode(), rng).decode("utf-8", "replace")
    value = rng.choice(ODD)
    text = value if isinstance(value, str) else json.dumps(value)
    if rng.random() < 0.3:
        text = damaged(text.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
    load_recipe(ROOT / "recipes" / "base.yaml", [f"{key}={text}"])


def lines(rng: random.Random) -> bytes:
    """Return JSON Lines of altered rows."""
    row = rng.choice(ROWS)
    return b"\n".join(as_json(altered(row, rng)) for _ in range(rng.randint(1, 4)))


def table(rng: random.Random, separator: str) -> bytes:
    """Return a table of altered rows as text."""
    row = rng.choice(ROWS)
    cells = [[str(altered(value, rng)) for value in row.values()] for _ in range(rng.randint(1, 4))]
    text = "\n".join(separator.join(f'"{cell}"' for cell in line) for line in [list(row), *cells])
    return text.encode("utf-8", "replace")


def parquet(path: Path, rng: random.Random) -> bytes:
    """Return a Parquet file of altered rows."""
    row = altered(rng.choice(ROWS), rng, 0.1)
    columns = {str(name): [value] for name, value in row.items()} if isinstance(row, dict) else {}
    try:
        pq.write_table(pa.table(columns), path)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        return b"PAR1"
    return path.read_bytes()


def read_data(folder: Path, rng: random.Random) -> None:
    """Preview a damaged data file of any kind."""
    suffix = rng.choice(
        (".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.bz2")
    )
    path = folder / f"x{suffix}"
    if suffix == ".parquet":
        data = parquet(path, rng)
    elif suffix in (".csv", ".tsv"):
        data = table(rng, "," if suffix == ".csv" else "\t")
    else:
        data = lines(rng)
    if suffix == ".json":
        data = b"[" + data.replace(b"\n", b",") + b"]"
    plain = rng.random() < 0.5
    data = data if plain else damaged(data, rng)
    if suffix.endswith((".gz", ".bz2")):
        packed = gzip.compress(data) if suffix.endswith(".gz") else bz2.compress(data)
        data = packed if rng.random() < 0.7 else damaged(packed, rng)
    path.write_bytes(data)
    section = DatasetSection(source=str(path), as_chat=rng.random() < 0.2)
    preview(section, rng.choice(("demonstrations", "comparisons", "prompts")))


def transcripts(folder: Path, rng: random.Random) -> None:
    """Preview damaged transcripts."""
    text = rng.choice(("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "Human: a"))
    row = {
        name: damaged(text.encode(), rng).decode("utf-8", "replace")
        for name in ("chosen", "rejected")
    }
    path = folder / "x.jsonl"
    path.write_bytes(as_json(row))
    section = DatasetSection(source=str(path))
    preview(section, rng.choice(("demonstrations", "comparisons", "prompts")))


def manifests(folder: Path, rng: random.Random) -> None:
    """Read a damaged manifest and the metrics in it."""
    path = folder / "manifest.json"
    Manifest().with_stage(RECORD).save(path)
    if rng.random() < 0.6:  # with its digest renewed, as by one who forges it
        record = altered(asdict(RECORD), rng, 0.04)
        value = json.dumps({"schema_version": SCHEMA_VERSION, "stages": {"sft": record}})
        write_sealed(path, json.loads(value.replace("NaN", "null").replace("\\ud800", "?")))
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    for record in Manifest.load(path).stages.values():
        record.result(EvaluationResult, path)


def judge_answers(_folder: Path, rng: random.Random) -> None:
    """Read a damaged answer of a judge."""
    body = as_json(altered(COMPLETION, rng))
    reply = read_answer(Answer(200, "OK", {}, body if rng.random() < 0.5 else damaged(body, rng)))
    if reply is not None:
        reply.verdict()


def judge_cache(folder: Path, rng: random.Random) -> None:
    """Open a damaged cache of a judge, twice."""
    path = folder / "judge_cache.jsonl"
    path.write_bytes(damaged(CACHE, rng))
    for _ in range(2):
        Answers(path)


def votes(folder: Path, rng: random.Random) -> None:
    """Read a damaged file of votes."""
    row = {"id": "p0123", "annotator": "ann", "vote": "a"}
    if rng.random() < 0.5:
        path, data = folder / "x.jsonl", as_json(altered(row, rng))
    else:
        path, data = folder / "x.csv", b"id,annotator,vote\np0123,ann,a\np0123,bob,tie\n"
    path.write_bytes(damaged(data, rng) if rng.random() < 0.7 else data)
    read_votes(path, {"p0123": "a"})


TARGETS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(recipes, overrides, read_data, read_data, transcripts),
    *(manifests, judge_answers, judge_cache, votes),
)


def place_of(error: BaseException) -> str:
    """Return type and innermost place of an error in the package."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "rlhfctl" in frame.filename
    ]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


def main() -> int:
    """Run the cases; return 1 if an exception was foreign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="name of one target")
    options = parser.parse_args()
    targets = [target for target in TARGETS if options.only in target.__name__]
    logging.disable(logging.WARNING)
    done: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        for case in range(options.cases):
            target = targets[case % len(targets)]
            try:
                target(Path(name), random.Random(f"{options.seed} {case}"))
                done[f"{target.__name__}: accepted"] += 1
            except RlhfctlError:
                done[f"{target.__name__}: refused"] += 1
            except Exception as error:
                place = f"{target.__name__}: {place_of(error)}"
                if place not in faults:
                    print(f"case {case}, seed {options.seed}: {place}: {str(error)[:200]!r}")
                faults[place] += 1
    for outcome, count in sorted(done.items()):
        print(f"{count:>8,} {outcome}")
    seconds = time.monotonic() - started
    print(f"{options.cases:,} cases, {sum(faults.values()):,} foreign exceptions, {seconds:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
