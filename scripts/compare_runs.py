"""Compare two run folders: every tensor bit for bit, every metric for equality.

    python scripts/compare_runs.py OLD NEW

Names of OLD are translated by RENAMED first, so that a run from before a renaming can be compared.
Durations, memory, throughput, paths, versions, recipes and digests are not compared (IGNORED).
Prints one line per difference. The exit status is 1 if there is any, and 2 if nothing could be
compared.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Iterator

RENAMED = {"figures": "metrics", "stand_in": "true_reward", "look": "held_out_evaluation"}
"""Words of file names, keys and values of JSON before and after a renaming."""
IGNORED = re.compile(
    r"time|started|(.*_)?seconds|(.*_)?memory_bytes|(.*_)?per_second|(schema_)?version|versions"
    r"|path|sha256|recipe_part|inputs|outputs"
)
"""Keys that differ between equal runs, or whose format may change."""
STAGES = ("sft", "rm", "ppo")
METRICS = (
    "manifest.json",
    "logs/*.jsonl",
    "eval/*.json*",
    "**/figures.json",
    "**/metrics.json",
    "**/score_normalization.json",
    "ppo/*.jsonl",
    "ppo/over_optimisation.json",
    "ppo/best/look.json",
    "ppo/best/held_out_evaluation.json",
)
"""Glob patterns of the files whose numbers are compared."""
_WORD = re.compile(rf"(?<![a-z])({'|'.join(RENAMED)})(?![a-z])")


def renamed(text: str) -> str:
    """Return a name or value with the words of RENAMED replaced."""
    return _WORD.sub(lambda match: RENAMED[match[0]], text)


def metric_files(run: Path) -> dict[str, Path]:
    """Return the files of METRICS by their new relative path; checkpoints are left out."""
    paths = {path for pattern in METRICS for path in run.glob(pattern)}
    relative = {path.relative_to(run): path for path in paths}
    return {
        renamed(name.as_posix()): path
        for name, path in relative.items()
        if "checkpoints" not in name.parts
    }


def tensor_files(run: Path) -> dict[str, Path]:
    """Return the weight files of all stages by relative path; checkpoints are left out."""
    paths = (path for stage in STAGES for path in (run / stage).glob("**/*.safetensors"))
    relative = {path.relative_to(run): path for path in paths}
    return {
        name.as_posix(): path for name, path in relative.items() if "checkpoints" not in name.parts
    }


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted new name and the value of every number, text and empty container."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if not IGNORED.fullmatch(key):
                yield from leaves(item, f"{path}.{renamed(key)}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, renamed(value) if isinstance(value, str) else value


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the leaves of a JSON file, or of every line of a JSONL file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    return dict(leaves([json.loads(line) for line in lines]))


def same_value(old: Any, new: Any) -> bool:
    """Return True for equal values; NaN equals NaN, and True does not equal 1."""
    both_nan = repr(old) == repr(new) == "nan"
    return both_nan or (old == new and isinstance(old, bool) == isinstance(new, bool))


def same_tensor(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Return True if dtype, shape and every bit are equal."""
    if old.dtype != new.dtype or old.shape != new.shape:
        return False
    return torch.equal(old.contiguous().view(torch.uint8), new.contiguous().view(torch.uint8))


def compare(old: dict[str, Any], new: dict[str, Any], same: Any) -> Iterator[str]:
    """Yield one line per name that is missing on a side or has another value."""
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name}: only in the old run"
        elif name not in old:
            yield f"{name}: only in the new run"
        elif not same(old[name], new[name]):
            tensors = isinstance(old[name], torch.Tensor)
            yield f"{name}: " + ("tensors differ" if tensors else f"{old[name]!r} -> {new[name]!r}")


def compare_files(old: dict[str, Path], new: dict[str, Path], read: Any, same: Any) -> list[str]:
    """Return the differences between the files of both runs, each with its file's name."""
    differences = list(compare(dict.fromkeys(old), dict.fromkeys(new), lambda *_: True))
    for name in sorted(old.keys() & new.keys()):
        lines = compare(read(old[name]), read(new[name]), same)
        differences += [f"{name} {line}" for line in lines]
    return differences


def main(arguments: list[str]) -> int:
    """Compare the two folders, print the result and return the exit status."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    old, new = map(Path, arguments)
    tensors, metrics = tensor_files(old), metric_files(old)
    if not tensors or not metrics:
        print(f"{old}: no weights or no metrics of a run here", file=sys.stderr)
        return 2
    differences = compare_files(tensors, tensor_files(new), load_file, same_tensor)
    differences += compare_files(metrics, metric_files(new), read_metrics, same_value)
    print(*differences, sep="\n", end="\n" if differences else "")
    print(f"{len(tensors)} weight files, {len(metrics)} metric files: {len(differences)} differ")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
