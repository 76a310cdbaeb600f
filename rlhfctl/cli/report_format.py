"""What a report can be written as."""

from enum import StrEnum


class Format(StrEnum):
    """What a report is written as."""

    HTML = "html"
    MD = "md"
    JSON = "json"
