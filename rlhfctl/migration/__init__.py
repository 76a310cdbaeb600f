"""Migration of other tools' configurations to recipes: LLaMA-Factory's and axolotl's."""

from __future__ import annotations

from rlhfctl.migration.account import summary, whole_account
from rlhfctl.migration.migrate import Migration, migrate
from rlhfctl.migration.outcomes import KeyOutcome
from rlhfctl.migration.tables import TOOLS

__all__ = ["TOOLS", "KeyOutcome", "Migration", "migrate", "summary", "whole_account"]
