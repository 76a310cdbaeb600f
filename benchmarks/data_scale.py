"""Reading and encoding of 161,000 comparisons in the form of HH-RLHF, before and after the cache.

    python -m benchmarks.data_scale --before ../main

The rows are made up: their number and size are those of the real set. Each kind of data is read and
encoded in a process of its own, as a stage does: by the checkout named by `--before`, by this one
with an empty cache, and by this one again. Seconds are of the clock; memory is the peak of the
process and of those it started. The result is benchmarks/results/data_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.output import ROOT, megabytes, show, write

ROWS = 161_000
KINDS = ("demonstrations", "comparisons", "prompts")
_WORDS = [
    "the",
    "of",
    "to",
    "and",
    "a",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "they",
    "which",
    "one",
    "you",
    "were",
    "all",
    "her",
    "she",
    "there",
    "would",
    "their",
    "we",
    "him",
    "been",
    "has",
    "when",
    "who",
    "will",
    "no",
    "more",
    "if",
    "out",
    "so",
    "up",
    "said",
    "what",
    "its",
    "about",
    "than",
    "into",
    "them",
    "can",
    "only",
    "other",
    "time",
    "new",
    "some",
    "could",
    "these",
]

# Runs in either checkout, hence only what both have.
_CHILD = """
import json, resource, sys, time
from pathlib import Path
from rlhfctl.data import formatting, sources
from rlhfctl.data.formatter import Formatter
from rlhfctl.models.tokenizer import read_tokenizer
from rlhfctl.recipe.load import load_recipe

kind, source, recipe = sys.argv[1:]
named = [f"data.{name}.source={source}" for name in ("comparisons", "prompts")]
text = f"data.demonstrations={{source: {source}, columns: {{text: chosen}}, max_rows: null}}"
none = [f"data.{name}.max_rows=null" for name in ("comparisons", "prompts")]
loaded = load_recipe(Path(recipe), [*named, *none, text]).recipe
formatter = Formatter(read_tokenizer(loaded.model))
load = getattr(sources, f"load_{kind}")
encode = getattr(formatting, f"encode_{kind}")

started = time.perf_counter()
rows = load(loaded)
read = time.perf_counter()
encoded = [encode(part, formatter, 1024) for part in (rows.train, rows.held_out)]
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
child = resource.getrusage(resource.RUSAGE_CHILDREN)
busy = time.process_time() + child.ru_utime + child.ru_stime
print(json.dumps({
    "read_seconds": read - started,
    "encode_seconds": done - read,
    "processor_seconds": busy,
    "peak_bytes": 1024 * peak,
    "peak_bytes_of_a_child": 1024 * child.ru_maxrss,
    "rows": [len(part.dataset) for part in encoded],
}))
"""


def make_rows(path: Path, rows: int) -> None:
    """Write transcripts of one to four turns, two answers each, one comparison a line."""
    rng = random.Random(0)

    def said(fewest: int, most: int) -> str:
        return " ".join(rng.choices(_WORDS, k=rng.randint(fewest, most))).capitalize() + "."

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            turns = rng.randint(1, 4)
            text = ""
            for turn in range(turns):
                text += f"\n\nHuman: {said(5, 36)}"
                text += f"\n\nAssistant: {said(10, 60) if turn < turns - 1 else ''}"
            text = text.rstrip()
            pair = {side: f"{text} {said(8, 84)}" for side in ("chosen", "rejected")}
            file.write(json.dumps(pair) + "\n")


def measure(checkout: Path, kind: str, source: Path, cache: Path) -> dict[str, Any]:
    """Read and encode one kind of data in a process of a checkout."""
    recipe = ROOT / "recipes" / "base.yaml"
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, kind, str(source), str(recipe)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=checkout,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "RLHFCTL_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
        },
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure both checkouts in turn, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="checkout to compare with")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, cache = Path(folder, "rows.jsonl"), Path(folder, "cache")
        make_rows(source, args.rows)
        size = source.stat().st_size
        runs = [("first run", ROOT), ("second run", ROOT)]
        if args.before is not None:
            runs.insert(0, ("before", args.before.resolve()))
        results = {
            name: {kind: measure(checkout, kind, source, cache) for kind in KINDS}
            for name, checkout in runs
        }
        stored = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    rows = [
        [
            f"{kind}, {name}",
            f"{result['read_seconds']:.1f}",
            f"{result['encode_seconds']:.1f}",
            f"{result['processor_seconds']:.1f}",
            megabytes(result["peak_bytes"]),
            megabytes(result["peak_bytes_of_a_child"]),
            _ratio(results, name, kind),
        ]
        for name, kinds in results.items()
        for kind, result in kinds.items()
    ]
    columns = (
        "data",
        "read, s",
        "encode, s",
        "processor, s",
        "peak",
        "of a child",
        "times as fast",
    )
    show(f"{args.rows:,} rows, {megabytes(size)}", columns, rows, f"cache: {megabytes(stored)}")
    result = {
        "machine": describe(os.cpu_count() or 1),
        "rows": args.rows,
        "bytes": size,
        "cache_bytes": stored,
    }
    write("data_scale", result | {"runs": results}, args.output)


def _ratio(results: dict[str, dict[str, dict[str, Any]]], name: str, kind: str) -> str:
    if "before" not in results or name == "before":
        return ""
    earlier, now = (
        results[run][kind]["read_seconds"] + results[run][kind]["encode_seconds"]
        for run in ("before", name)
    )
    return f"{earlier / now:.1f}"


if __name__ == "__main__":
    main()
