"""The `show` and `validate` commands."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from rlhfctl.cli.resolve import resolve
from rlhfctl.cli.validation import require_valid_files
from rlhfctl.console import Terminal, safe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rlhfctl.cli.options import RunOptions
    from rlhfctl.preflight import Finding


def show_recipe(options: RunOptions) -> None:
    """Print the resolved recipe and the origin of each value.

    Raises:
        RlhfctlError: The recipe does not exist or is invalid.
    """
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    resolved = resolve(options)
    values = resolved.loaded.recipe.model_dump(mode="json")
    origins = resolved.loaded.origins
    if options.json:
        path = str(resolved.choice.path)
        terminal.write_json({"ok": True, "path": path, "recipe": values, "origins": origins})
        return
    terminal.note(f"recipe {resolved.choice.path} ({resolved.choice.reason})")
    terminal.result(*_lines(values, origins))


def validate_recipe(options: RunOptions) -> None:
    """Check a recipe and the local files and columns it refers to.

    Raises:
        RlhfctlError: The recipe or a file is invalid; lists every error.
    """
    terminal = Terminal(quiet=options.quiet, as_json=options.json)
    resolved = resolve(options)
    recipe = resolved.loaded.recipe
    findings = require_valid_files(recipe, terminal)
    if options.json:
        path = str(resolved.choice.path)
        values = [asdict(finding) for finding in findings]
        terminal.write_json({"ok": True, "path": path, "findings": values})
        return
    for level in ("ok", "not checked"):
        for finding in findings:
            if finding.level == level:
                terminal.note(f"{level}  {finding.where}: {finding.what}")
    terminal.result(_verdict(str(resolved.choice.path), findings))


def _verdict(path: str, findings: Sequence[Finding]) -> str:
    unchecked = sum(finding.level == "not checked" for finding in findings)
    if not unchecked:
        return f"{path} is valid"
    items = "item was" if unchecked == 1 else "items were"
    return f"{path} is valid; {unchecked} {items} not checked"


def _lines(values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[Text]:
    """Yield the recipe as YAML, with the origins as aligned comments."""
    rows = list(_rows(values, origins, ""))
    width = min(48, max(len(text) for text, _ in rows))
    for text, origin in rows:
        style = "dim" if origin == "default" else "cyan"
        comment = safe(f"  # {origin}", style) if origin else Text()
        yield Text.assemble(safe(text.ljust(width) if origin else text), comment)


def _rows(
    values: Mapping[str, Any], origins: Mapping[str, str], prefix: str
) -> Iterator[tuple[str, str]]:
    indent = "  " * prefix.count(".")
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:", ""
            yield from _rows(value, origins, f"{dotted}.")
        else:
            # JSON is YAML, and its quotes keep strings such as `no` from turning into booleans.
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}", origins.get(dotted, "")
