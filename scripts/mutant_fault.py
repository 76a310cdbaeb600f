"""A fault of `make mutants`."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One line of the package, the wrong line in its place, and the tests that must notice.

    Attributes:
        name: What is wrong.
        file: Path inside the package.
        old: Text that is exactly once in the file.
        new: Replacement of `old`.
        tests: Test files, relative to tests/.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
