"""Generated reference pages match the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_pages_are_current() -> None:
    page = ROOT / "docs" / "reference" / "exit-codes.md"
    committed = page.read_text(encoding="utf-8")
    try:
        subprocess.run([sys.executable, str(ROOT / "scripts" / "reference.py")], check=True)
        assert page.read_text(encoding="utf-8") == committed
    finally:
        page.write_text(committed, encoding="utf-8")
