"""Every message that the troubleshooting page quotes is one that the source can print."""

import ast
import re

import pytest

from tests.source_files import PACKAGE_FILES, ROOT, parsed

PAGE = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
GAP = "…"


def texts():
    """Return the texts of the package, with a gap for each value that is filled in."""
    found = set()
    for path in PACKAGE_FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else GAP for part in node.values
                ]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


TEXTS = texts()


def is_in_source(quoted):
    """Return whether the quoted pieces stand in one text, in their order."""
    pieces = [re.escape(piece.strip()) for piece in quoted.split(GAP) if piece.strip()]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_in_the_source(quoted):
    assert is_in_source(quoted)


def test_the_page_has_the_usual_messages_and_others_would_be_found():
    assert len(QUOTED) >= 20
    assert not is_in_source("the flux capacitor is empty")
    assert not is_in_source("… is not finite before step …")
