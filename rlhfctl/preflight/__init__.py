"""Checks of what a recipe refers to, without weights or network access."""

from rlhfctl.preflight.files import check_files, check_model, check_stage_data
from rlhfctl.preflight.finding import Finding

__all__ = ["Finding", "check_files", "check_model", "check_stage_data"]
