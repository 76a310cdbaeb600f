"""Per-prompt measurements saved for paired comparisons of two evaluations."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.run.directory import SCORES_FILE
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from rlhfctl.stages.evaluation.context import EvalContext

_NAMES = ("kl", "proxy", "gold", "held_out_rm", "lengths")


def write_scores(context: EvalContext) -> None:
    """Write `scores.json`.

    Format: ``{"prompts": digest of the prompts, "policies": {NAME: {"kl": [prompts], ...}}}``.
    """
    prompts = json.dumps([list(ids) for ids in context.prompt_ids])
    policies = {
        name: {
            metric: np.asarray(values, dtype=np.float64).tolist()
            for metric in _NAMES
            if (values := getattr(responses, metric)) is not None
        }
        for name, responses in context.policies.items()
    }
    digest = hashlib.sha256(prompts.encode()).hexdigest()
    write_json(context.output / SCORES_FILE, {"prompts": digest, "policies": policies})
