"""Apply one-line faults to a copy of the numeric core and check that a test catches each.

    python scripts/mutants.py            # all
    python scripts/mutants.py kl gae     # those whose name contains one of these words

Each fault of FAULTS is applied to a copy of the package in a temporary folder, never to the working
tree, and its test files run until the first failure. They must pass without a fault. A fault is
killed if a test fails or runs out of time. The exit status is 1 if a fault survives or its old text is not exactly once in the file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mutant_faults import FAULTS

if TYPE_CHECKING:
    from mutant_fault import Fault

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("rlhfctl", "tests", "recipes", "benchmarks", "scripts", "pyproject.toml")
SECONDS = 600
"""Time limit of one fault's tests."""
NO_TEST_FAILED = 0
TESTS_FAILED = 1


def problem(fault: Fault, root: Path) -> str | None:
    """Return why a fault cannot be applied to a tree, if so."""
    count = (root / "rlhfctl" / fault.file).read_text(encoding="utf-8").count(fault.old)
    if count != 1:
        return f"its old text is {count} times in rlhfctl/{fault.file}"
    missing = [name for name in fault.tests.split() if not (root / "tests" / name).is_file()]
    return f"no test file {', '.join(missing)}" if missing else None


def copy_tree(folder: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)


def run_tests(names: list[str], folder: Path) -> str:
    """Return `survived` if the tests pass, `killed` if one fails, else pytest's output."""
    tests = [f"tests/{name}" for name in names]
    options = ["-x", "-q", "--tb=line", "-m", "not slow", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed"
    outcomes = {NO_TEST_FAILED: "survived", TESTS_FAILED: "killed"}
    return outcomes.get(result.returncode, f"pytest failed:\n{result.stdout}{result.stderr}")


def main(words: list[str]) -> int:
    """Run the faults whose name contains one of the words; return the exit status."""
    selected = [f for f in FAULTS if not words or any(word in f.name for word in words)]
    if problems := [f"{f.name}: {text}" for f in selected if (text := problem(f, ROOT))]:
        print(*problems, sep="\n")
        return 1
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        # A test that fails without a fault would count every fault as killed.
        names = sorted({name for fault in selected for name in fault.tests.split()})
        if (outcome := run_tests(names, folder)) != "survived":
            print(f"the tests do not pass without a fault: {outcome}")
            return 1
        for fault in selected:
            path = folder / "rlhfctl" / fault.file
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
            outcome = run_tests(fault.tests.split(), folder)
            path.write_text(text, encoding="utf-8")
            outcomes.append(outcome)
            print(f"{outcome:10} {fault.file}: {fault.name}", flush=True)
    killed = outcomes.count("killed")
    print(f"{killed} of {len(outcomes)} faults killed")
    return 0 if killed == len(outcomes) > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
