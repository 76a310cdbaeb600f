"""The commands that README and docs show, with what surrounds them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.source_files import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^ *```(\w*)")
_START = re.compile(r"^ *(?:\$ |- run: )?((?:rlhfctl|make|\S*python) .*)$")
_INLINE = re.compile(r"`(rlhfctl [^`\n]+)`")


@dataclass(frozen=True)
class Shown:
    """One command of a page.

    Attributes:
        page: The page's path from the root.
        line: Number of its line, from 1.
        words: The command, without its comment.
        text: The whole page.
    """

    page: str
    line: int
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """Return page, line and command, as the name of a test."""
        return f"{self.page}:{self.line}: {' '.join(self.words)}"


def fenced(page: Path) -> Iterator[Shown]:
    """Yield the commands of a page's fenced blocks; a line that ends in a backslash goes on."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(ROOT))
    language, waiting, start = None, "", 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence:
            language = None if language is not None else fence[1]
            continue
        if language is None:
            continue
        match = _START.match(line)
        if not waiting and match is None:
            continue
        waiting += line.strip() if waiting or match is None else match[1]
        start = start or number
        if waiting.endswith("\\"):
            waiting = waiting[:-1]
            continue
        yield Shown(name, start, _words(waiting), text)
        waiting, start = "", 0


def inline(page: Path) -> Iterator[Shown]:
    """Yield the commands of rlhfctl within a page's sentences and tables."""
    text = page.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        for match in _INLINE.finditer(line):
            yield Shown(str(page.relative_to(ROOT)), number, _words(match[1]), text)


def _words(command: str) -> tuple[str, ...]:
    """Return the words of a command, up to a pipe or a redirection."""
    words = shlex.split(command, comments=True)
    ends = [words.index(mark) for mark in (">", "|", "&&", ";") if mark in words]
    return tuple(words[: min(ends, default=len(words))])
