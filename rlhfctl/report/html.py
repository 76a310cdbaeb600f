"""Rendering of page templates, with escaping and only the page's own script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlhfctl import __version__
from rlhfctl.report.plots import drawn
from rlhfctl.run.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = files("rlhfctl.report") / "templates"


def write(template: str, view: Mapping[str, Any]) -> str:
    """Return a page: the filled template, with styles and script inlined."""
    script = (_TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ours = {
        "script": Markup(script),  # noqa: S704 - a file of the package
        "style": Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704
        "script_hash": f"sha256-{digest}",
        "version": __version__,
    }
    return _environment().get_template(template).render({**ours, **view})


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rlhfctl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawn"] = drawn
    return environment


def _shown(value: Any) -> Any:
    """Spell out invisible characters in all template output except the package's own markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
