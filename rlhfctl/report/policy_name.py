"""Name of the method that trained the policy which the evaluation compares with SFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhfctl.json_text import parse_json
from rlhfctl.stage_table import DPO, PPO

if TYPE_CHECKING:
    from pathlib import Path

    from rlhfctl.run.manifest import StageRecord

_ORIGIN = "rlhfctl.json"


def policy_name(evaluation: StageRecord | None, root: Path) -> str:
    """Return `DPO` if the evaluated policy is DPO's, else `PPO`.

    Every checkpoint says which stage wrote it; one that is gone is told by its folder's name.

    Args:
        evaluation: Record of the evaluation, if there is one.
        root: The run's folder.
    """
    artifact = evaluation.inputs.get(PPO.name) if evaluation else None
    if artifact is None:
        return PPO.title
    folder = root / artifact.path
    try:
        stage = parse_json((folder / _ORIGIN).read_bytes())["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        stage = folder.name
    return DPO.title if stage == DPO.name else PPO.title
