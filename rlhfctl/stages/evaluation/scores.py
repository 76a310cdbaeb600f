"""Per-prompt measurements saved for paired comparisons of two evaluations."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

from rlhfctl.results.io import to_json
from rlhfctl.results.scores import PromptScores, ResponseScores
from rlhfctl.run.directory import SCORES_FILE
from rlhfctl.run.files import write_json

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from rlhfctl.stages.evaluation.context import EvalContext


def write_scores(context: EvalContext) -> None:
    """Write `scores.json`."""
    prompts = json.dumps([list(ids) for ids in context.prompt_ids])
    policies = {
        name: ResponseScores(
            kl=np.asarray(responses.kl, dtype=np.float64).tolist(),
            proxy=_listed(responses.proxy),
            gold=_listed(responses.gold),
            held_out_rm=_listed(responses.held_out_rm),
            lengths=_listed(responses.lengths),
        )
        for name, responses in context.policies.items()
    }
    digest = hashlib.sha256(prompts.encode()).hexdigest()
    write_json(context.output / SCORES_FILE, to_json(PromptScores(digest, policies)))


def _listed(values: ArrayLike | None) -> list[float] | None:
    return None if values is None else np.asarray(values, dtype=np.float64).tolist()
