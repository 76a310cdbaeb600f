"""Every held-out prompt's metrics on file, so that two evaluations can be compared prompt by prompt."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.run.directory import SCORES_FILE
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from rlhfctl.stages.evaluation.context import EvalContext

_NAMES = ("kl", "proxy", "gold", "held_out_rm", "lengths")


def scores(context: EvalContext) -> dict[str, Any]:
    """Write `scores.json`; it adds no figure.

    It is ``{"prompts": digest of the prompts, "policies": {NAME: {"kl": [prompts], ...}}}``.
    """
    asked = json.dumps([list(ids) for ids in context.prompt_ids])
    policies = {
        name: {
            figure: np.asarray(values, dtype=np.float64).tolist()
            for figure in _NAMES
            if (values := getattr(responses, figure)) is not None
        }
        for name, responses in context.policies.items()
    }
    digest = hashlib.sha256(asked.encode()).hexdigest()
    write_json(context.output / SCORES_FILE, {"prompts": digest, "policies": policies})
    return {}
