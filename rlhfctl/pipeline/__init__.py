"""Plans and runs the stages of a recipe, and records what they made."""

from rlhfctl.pipeline.conclusions import WrittenReport
from rlhfctl.pipeline.planning import is_up_to_date, needed_stages
from rlhfctl.pipeline.processes import load_stage, worker_loop
from rlhfctl.pipeline.running import StageResult, require_start, run_stages

__all__ = [
    "StageResult",
    "WrittenReport",
    "is_up_to_date",
    "load_stage",
    "needed_stages",
    "require_start",
    "run_stages",
    "worker_loop",
]
