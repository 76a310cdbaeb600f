"""Generate the pages of docs/reference from the code that they describe."""

from pathlib import Path

from rlhfctl.errors import EXIT_CODE_MEANINGS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"


def exit_codes_page() -> str:
    """Render the exit status of every command as one Markdown table."""
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in EXIT_CODE_MEANINGS.items()]
    header = ["# Exit codes", "", "Every command ends with one of these exit codes.", ""]
    return "\n".join([*header, "| Code | Meaning |", "| --- | --- |", *rows, ""])


if __name__ == "__main__":
    (REFERENCE / "exit-codes.md").write_text(exit_codes_page(), encoding="utf-8")
