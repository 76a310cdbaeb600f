"""Plan the stages of a run, run those that are not up to date, and record their results."""

from rlhfctl.pipeline.planning import external_checkpoints, is_finished, needed_stages
from rlhfctl.pipeline.running import StageResult, run_stages
from rlhfctl.pipeline.termination import Terminated, terminable
from rlhfctl.pipeline.worker import load_stage, worker_loop

__all__ = [
    "StageResult",
    "Terminated",
    "external_checkpoints",
    "is_finished",
    "load_stage",
    "needed_stages",
    "run_stages",
    "terminable",
    "worker_loop",
]
