"""docs/reference/json.md has a row for every command with `--json`."""

import re

from tests.cli.test_options import COMMANDS
from tests.source_files import ROOT

PAGE = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")


def test_every_command_with_json_has_a_row():
    table = PAGE.partition("## Further fields")[2]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    with_json = {
        name
        for name, command in COMMANDS.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert named == with_json
