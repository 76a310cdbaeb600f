"""Output formats of `report`."""

from enum import StrEnum


class ReportFormat(StrEnum):
    """Output format of a report."""

    HTML = "html"
    MD = "md"
    JSON = "json"
