"""Checks of what a recipe refers to, without weights or network access."""

from rlhfctl.preflight.files import check_files, check_model, check_stage_data
from rlhfctl.preflight.finding import Finding
from rlhfctl.preflight.libraries import check_packages

__all__ = ["Finding", "check_files", "check_model", "check_packages", "check_stage_data"]
