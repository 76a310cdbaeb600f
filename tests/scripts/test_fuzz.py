"""The fuzzer finds what is foreign, and today's readers give it nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "fuzz.py"
BROKEN = """
import sys
from rlhfctl.stages.evaluation import judge_endpoint
def broken(answer): raise KeyError("content")
judge_endpoint.read_answer = broken
sys.argv = ["fuzz.py", "--cases", "3", "--only", "judge_answers"]
exec(compile(open({script!r}).read(), {script!r}, "exec"), {{"__name__": "__main__", "__file__": {script!r}}})
"""


def fuzz(*command):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_a_few_cases_of_every_reader_give_only_our_own_errors():
    done = fuzz(str(SCRIPT), "--cases", "180")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "180 cases, 0 foreign exceptions" in done.stdout


def test_a_foreign_exception_is_counted_and_told_by_place():
    done = fuzz("-c", BROKEN.format(script=str(SCRIPT)))
    assert done.returncode == 1
    assert "judge_answers: KeyError at" in done.stdout
    assert "3 cases, 3 foreign exceptions" in done.stdout
