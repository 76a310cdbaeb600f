"""The date that chat templates write, the same on every day.

Templates such as Llama 3's write the current date into the system turn, by a function `strftime_now`
that transformers gives them. A run that was interrupted at night would go on with other prompts, and two
runs of one recipe would differ. So rlhfctl renders them with a fixed date in place of the call.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOCK = "strftime_now"
"""Name of the function, and of the key of `model.chat_template_kwargs` with another date."""
DATE = "2024-07-26"
"""The default of Llama 3's templates where they cannot ask for the date."""
_CALL = re.compile(CLOCK + r"""\s*\(\s*(["'])(.*?)\1\s*\)""")


def date_fault(variables: Mapping[str, Any]) -> str | None:
    """Return why a recipe's variables hold no date; None if they hold one, or leave it out."""
    try:
        _date(variables)
    except ValueError:
        return (
            f'{CLOCK} is the date that the chat template writes, such as "{DATE}", and not '
            f"{variables[CLOCK]}"
        )
    return None


def with_date(template: str, variables: Mapping[str, Any]) -> str:
    """Return a chat template whose calls of the function, with a format as text, are the date.

    Args:
        template: Chat template.
        variables: Its variables; `CLOCK` among them is another date, year-month-day.
    """
    return _with_date(template, _date(variables)) if CLOCK in template else template


@lru_cache(maxsize=8)
def _with_date(template: str, day: datetime) -> str:
    return _CALL.sub(lambda call: json.dumps(day.strftime(call[2])), template)


def changes_by_day(template: str) -> bool:
    """Return whether a template asks for the date by a format that is no text, which stays as it is."""
    return re.search(CLOCK + r"\s*\(", with_date(template, {})) is not None


def without_date(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that the template itself has."""
    return {name: value for name, value in variables.items() if name != CLOCK}


def _date(variables: Mapping[str, Any]) -> datetime:
    day = str(variables.get(CLOCK, DATE))
    return datetime.strptime(day, "%Y-%m-%d")  # a day, without a time
