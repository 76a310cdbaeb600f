"""Who wins, PPO or its opponent, by judges that PPO was not trained on; and all at equal length."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.rows import content
from rlhfctl.data.split import prompt_key
from rlhfctl.errors import DataError, RlhfctlError
from rlhfctl.evaluation.judged import BothOrders, judged_figures, outcomes_of
from rlhfctl.evaluation.length_controlled import length_controlled_win_rate
from rlhfctl.maths.sequences import Sequences
from rlhfctl.run.files import write_atomic
from rlhfctl.stages.gate import FIGURES_FILE
from rlhfctl.stages.held_out_rm import judge_number, judge_reward_model
from rlhfctl.stages.judge_endpoint import Endpoint
from rlhfctl.stages.judge_prompts import question
from rlhfctl.stages.reward_sources import import_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlhfctl.evaluation.trial import Responses
    from rlhfctl.recipe.judges import JudgeEndpointSection
    from rlhfctl.stages.judge_prompts import Verdict
    from rlhfctl.stages.judging import Judging

ANSWERS_FILE = "answers.jsonl"
"""Every prompt with PPO's answer and the opponent's, for judges of any kind."""
CACHE_FILE = "judge_cache.jsonl"
_WON_BY_FIRST: dict[Verdict, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Pairs:
    """PPO's responses beside the opponent's, on the prompts that have both.

    Attributes:
        rows: [pairs] which of the evaluation's prompts they answer.
        prompts: [pairs] the prompts as they stand in the data.
        texts: [pairs] PPO's.
        others: [pairs] the opponent's.
        opponent: `sft` or `references`.
    """

    rows: Sequence[int]
    prompts: Sequence[Any]
    texts: Sequence[str]
    others: Sequence[str]
    opponent: str


def judges(judging: Judging) -> dict[str, Any]:
    """Return `judges`, and the gold and proxy win rates at equal length; nothing without PPO.

    Raises:
        DataError: A judging function fails or gives no preference a pair.
        RecipeError: It cannot be imported, or the endpoint's key is not set.
        EnvironmentFault: The endpoint cannot be asked.
    """
    if "ppo" not in judging.policies:
        return {}
    evaluation, inputs = judging.recipe.evaluation, judging.inputs
    figures = _at_equal_length(judging.policies["sft"], judging.policies["ppo"], judging)
    pairs = _pairs(judging)
    if not pairs.rows:
        judging.monitor.warn(
            "no held-out prompt has a demonstration, so no judge can compare with references"
        )
        return figures
    found: dict[str, Any] = {}
    if judge_reward_model(judging.recipe, inputs) is not None:
        found["held_out_rm"] = _held_out_rm(judging, pairs)
    if evaluation.judge_endpoint is not None:
        found["endpoint"] = _endpoint(judging, pairs, evaluation.judge_endpoint)
    if evaluation.judge_function is not None:
        name = evaluation.judge_function.partition(":")[2]
        found[name if name not in found else f"function_{name}"] = _function(
            judging, pairs, evaluation.judge_function
        )
    for name, judge in found.items():
        for warning in judge["warnings"]:
            judging.monitor.warn(f"judge {name}: {warning}")
    _write_answers(judging, pairs)
    return figures | ({"judges": found} if found else {})


def _at_equal_length(sft: Responses, ppo: Responses, judging: Judging) -> dict[str, Any]:
    """Return `gold_` and `proxy_length_controlled_win_rate`, where known, with intervals."""
    figures: dict[str, Any] = {}
    for name in ("gold", "proxy"):
        scores, others = getattr(ppo, name), getattr(sft, name)
        if scores is None or others is None or len(ppo.texts) < 2:
            continue
        rate = length_controlled_win_rate(
            outcomes_of(scores, others),
            list(map(len, ppo.texts)),
            list(map(len, sft.texts)),
            judging.recipe.seed,
        )
        figures |= rate.figures(f"{name}_length_controlled_win_rate")
    return figures


def _pairs(judging: Judging) -> Pairs:
    opponent = judging.recipe.evaluation.opponent
    ppo = judging.policies["ppo"].texts
    if opponent == "sft":
        rows = range(len(ppo))
        return Pairs(rows, judging.prompts, ppo, judging.policies["sft"].texts, opponent)
    held_out = judging.demonstrations.held_out
    references = {
        prompt_key(prompt): content(completion)
        for prompt, completion in zip(held_out["prompt"], held_out["completion"], strict=True)
    }
    keys = [prompt_key(prompt) for prompt in judging.prompts]
    kept = [row for row, key in enumerate(keys) if key in references]
    return Pairs(
        kept,
        [judging.prompts[row] for row in kept],
        [ppo[row] for row in kept],
        [references[keys[row]] for row in kept],
        opponent,
    )


def _write_answers(judging: Judging, pairs: Pairs) -> None:
    lines = [
        json.dumps({"prompt": _shown(prompt), "ppo": text, "opponent": other}, ensure_ascii=False)
        for prompt, text, other in zip(pairs.prompts, pairs.texts, pairs.others, strict=True)
    ]
    write_atomic(judging.output / ANSWERS_FILE, "".join(f"{line}\n" for line in lines))


def _shown(prompt: Any) -> str:
    """Return a prompt as a judge reads it; who said what matters only in a longer conversation."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return content(prompt)
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _held_out_rm(judging: Judging, pairs: Pairs) -> dict[str, Any]:
    folder = judge_reward_model(judging.recipe, judging.inputs)
    scores = np.asarray(judging.policies["ppo"].held_out_rm)[list(pairs.rows)]
    if pairs.opponent == "sft":
        others = judging.policies["sft"].held_out_rm
    else:
        others = _scores_of_texts(judging, pairs)
    figures = judged_figures(
        outcomes_of(scores, np.asarray(others)), pairs.texts, pairs.others, judging.recipe.seed
    )
    file = folder / FIGURES_FILE if folder is not None else None
    own = json.loads(file.read_text(encoding="utf-8")) if file and file.is_file() else {}
    if "accuracy" in own:
        figures["accuracy"] = {
            "accuracy": own["accuracy"],
            "low": own["accuracy_low"],
            "high": own["accuracy_high"],
            "pairs": own["pairs"],
        }
    return _described("reward_model", pairs, figures)


def _scores_of_texts(judging: Judging, pairs: Pairs) -> list[float]:
    """Return the held-out reward model's scores of the opponent's texts."""
    number = judge_number(judging.recipe, judging.inputs)
    answers = [
        other if isinstance(prompt, str) else [{"role": "assistant", "content": other}]
        for prompt, other in zip(pairs.prompts, pairs.others, strict=True)
    ]
    ids = list(judging.session.formatter.pairs(list(zip(pairs.prompts, answers, strict=True))))
    size = judging.recipe.evaluation.batch_size
    scores: list[float] = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        batch = Sequences.from_lists(
            [prompt for prompt, _ in part],
            [response for _, response in part],
            judging.roles.pad_token_id,
            judging.roles.device,
        )
        scores += judging.roles.scores(batch, number or 0).tolist()
    return scores


def _endpoint(judging: Judging, pairs: Pairs, section: JudgeEndpointSection) -> dict[str, Any]:
    """Ask about each pair in both orders."""
    endpoint = Endpoint(section, judging.output.parent / CACHE_FILE)
    chosen = range(min(section.max_prompts, len(pairs.rows)))
    questions = []
    for at in chosen:
        prompt = _shown(pairs.prompts[at])
        questions.append(question(section, prompt, pairs.texts[at], pairs.others[at]))
        questions.append(question(section, prompt, pairs.others[at], pairs.texts[at]))
    judging.monitor.start("eval judge", len(questions), "questions")
    replies = endpoint.ask(questions, lambda done: judging.monitor.step(done, {}))
    judging.monitor.finish()
    verdicts = [reply.verdict() for reply in replies]
    first = [_WON_BY_FIRST.get(verdict) for verdict in verdicts[::2]]
    won_by_other = [_WON_BY_FIRST.get(verdict) for verdict in verdicts[1::2]]
    orders = BothOrders(first, [None if won is None else 1.0 - won for won in won_by_other])
    figures = judged_figures(
        orders.outcomes(),
        pairs.texts[: len(chosen)],
        pairs.others[: len(chosen)],
        judging.recipe.seed,
    )
    bias = orders.bias_figures(judging.recipe.seed)
    figures["warnings"] += bias.pop("warnings")
    lost = len(chosen) - figures["prompts"]
    if lost:
        figures["warnings"].append(
            f"{lost} of {len(chosen)} prompts have no verdict in both orders and are left out"
        )
    figures |= bias | {
        "refusals": verdicts.count("refused"),
        "unparsable": verdicts.count("unparsable"),
        "model": section.model,
    }
    return _described("endpoint", pairs, figures)


def _function(judging: Judging, pairs: Pairs, name: str) -> dict[str, Any]:
    key = "evaluation.judge_function"
    function = import_function(name, key)
    try:
        given = function(
            prompts=list(pairs.prompts), completions=list(pairs.texts), opponents=list(pairs.others)
        )
        outcomes = [float(value) for value in given]
    except RlhfctlError:
        raise
    except Exception as error:
        raise DataError(
            f"the judging function failed: {type(error).__name__}: {error}",
            f"{key}: {name}",
            "Mend it; --debug shows where it failed.",
        ) from error
    if len(outcomes) != len(pairs.rows) or not all(0.0 <= won <= 1.0 for won in outcomes):
        raise DataError(
            f"the judging function gave {len(outcomes)} preferences for {len(pairs.rows)} pairs, or "
            "some that do not lie between 0 and 1",
            f"{key}: {name}",
            "It must return, for each completion, how far it is preferred to its opponent.",
        )
    figures = judged_figures(outcomes, pairs.texts, pairs.others, judging.recipe.seed)
    return _described("function", pairs, figures)


def _described(kind: str, pairs: Pairs, figures: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "opponent": pairs.opponent, "refusals": 0, "unparsable": 0} | figures
