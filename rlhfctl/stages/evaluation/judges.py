"""Win rates of PPO over its opponent, by judges that PPO was not trained on."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhfctl.data.rows import content
from rlhfctl.data.split import prompt_key
from rlhfctl.errors import DataError
from rlhfctl.evaluation.length_controlled import length_controlled_win_rate
from rlhfctl.evaluation.win_rate import BothOrders, pairwise_outcomes, win_rate_metrics
from rlhfctl.maths.sequences import Sequences
from rlhfctl.results.estimate import Estimate, GroupAccuracy
from rlhfctl.results.evaluation import Comparison, JudgeResult
from rlhfctl.results.io import read_result
from rlhfctl.results.training import RewardModelResult
from rlhfctl.run.directory import ANSWERS_FILE, JUDGE_CACHE_FILE, METRICS_FILE
from rlhfctl.run.files import write_atomic
from rlhfctl.stages.evaluation.judge_endpoint import Endpoint
from rlhfctl.stages.evaluation.judge_prompts import question
from rlhfctl.stages.shared.held_out_rm import has_held_out_rm, held_out_rm_folder
from rlhfctl.stages.shared.reward_functions import UserFunction, import_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from rlhfctl.recipe.judges import JudgeEndpointSection
    from rlhfctl.recipe.schema import Recipe
    from rlhfctl.stages.evaluation.context import EvalContext
    from rlhfctl.stages.evaluation.judge_prompts import Verdict

_WON_BY_FIRST: dict[Verdict, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class Pairs:
    """Responses of PPO and its opponent to the same prompts.

    Attributes:
        rows: [pairs] indices of the evaluation's prompts.
        prompts: [pairs] prompts as in the data.
        texts: [pairs] PPO's responses.
        others: [pairs] the opponent's responses.
        opponent: `sft` or `references`.
    """

    rows: Sequence[int]
    prompts: Sequence[Any]
    texts: Sequence[str]
    others: Sequence[str]
    opponent: str


def judges(context: EvalContext) -> dict[str, JudgeResult] | None:
    """Return each judge's preferences between PPO and its opponent; None without PPO or judges.

    Raises:
        DataError: A judge function fails or does not return one preference per pair.
        RecipeError: A judge function cannot be imported, or the endpoint's key is not set.
        EnvironmentFault: The endpoint cannot be reached.
    """
    if "ppo" not in context.policies:
        return None
    evaluation, inputs = context.recipe.evaluation, context.inputs
    pairs = _pairs(context)
    if not pairs.rows:
        context.monitor.warn(
            "no held-out prompt has a demonstration, so no judge can compare with references"
        )
        return None
    results: dict[str, JudgeResult] = {}
    if has_held_out_rm(context.recipe, inputs):
        results["held_out_rm"] = _held_out_rm(context, pairs)
    if evaluation.judge_endpoint is not None:
        results["endpoint"] = _endpoint(context, pairs, evaluation.judge_endpoint)
    if context.judge_function is not None:
        name = context.judge_function.name.partition(":")[2]
        results[name if name not in results else f"function_{name}"] = _function(
            context, pairs, context.judge_function
        )
    for name, result in results.items():
        for warning in result.preferences.warnings:
            context.monitor.warn(f"judge {name}: {warning}")
    _write_answers(context, pairs)
    return results or None


def at_equal_length(comparison: Comparison, context: EvalContext) -> Comparison:
    """Return the comparison with length-controlled win rates by each score of both policies."""
    sft, ppo = context.policies["sft"], context.policies["ppo"]

    def rate(scores: ArrayLike | None, others: ArrayLike | None) -> Estimate | None:
        if scores is None or others is None or len(ppo.texts) < 2:
            return None
        return length_controlled_win_rate(
            pairwise_outcomes(scores, others),
            list(map(len, ppo.texts)),
            list(map(len, sft.texts)),
            context.recipe.seed,
        )

    return replace(
        comparison,
        gold_length_controlled_win_rate=rate(ppo.gold, sft.gold),
        proxy_length_controlled_win_rate=rate(ppo.proxy, sft.proxy),
    )


def _pairs(context: EvalContext) -> Pairs:
    opponent = context.recipe.evaluation.opponent
    ppo = context.policies["ppo"].texts
    if opponent == "sft":
        rows = range(len(ppo))
        return Pairs(rows, context.prompts, ppo, context.policies["sft"].texts, opponent)
    held_out = context.demonstrations.held_out
    references = {
        prompt_key(prompt): content(completion)
        for prompt, completion in zip(held_out["prompt"], held_out["completion"], strict=True)
    }
    keys = [prompt_key(prompt) for prompt in context.prompts]
    paired = [row for row, key in enumerate(keys) if key in references]
    return Pairs(
        paired,
        [context.prompts[row] for row in paired],
        [ppo[row] for row in paired],
        [references[keys[row]] for row in paired],
        opponent,
    )


def _write_answers(context: EvalContext, pairs: Pairs) -> None:
    lines = [
        json.dumps({"prompt": _shown(prompt), "ppo": text, "opponent": other}, ensure_ascii=False)
        for prompt, text, other in zip(pairs.prompts, pairs.texts, pairs.others, strict=True)
    ]
    write_atomic(context.output / ANSWERS_FILE, "".join(f"{line}\n" for line in lines))


def _shown(prompt: Any) -> str:
    """Return a prompt as text for a judge; roles are shown for multi-turn prompts only."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return content(prompt)
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _held_out_rm(context: EvalContext, pairs: Pairs) -> JudgeResult:
    folder = held_out_rm_folder(context.recipe, context.inputs)
    scores = np.asarray(context.policies["ppo"].held_out_rm)[list(pairs.rows)]
    if pairs.opponent == "sft":
        others = context.policies["sft"].held_out_rm
    else:
        others = _scores_of_texts(context, pairs)
    preferences = win_rate_metrics(
        pairwise_outcomes(scores, np.asarray(others)),
        pairs.texts,
        pairs.others,
        context.recipe.seed,
    )
    file = folder / METRICS_FILE if folder is not None else None
    accuracy = None
    if file is not None and file.is_file():
        own = read_result(RewardModelResult, file)
        accuracy = GroupAccuracy(own.accuracy, own.pairs)
    return JudgeResult("reward_model", pairs.opponent, preferences, accuracy=accuracy)


def _scores_of_texts(context: EvalContext, pairs: Pairs) -> list[float]:
    """Return the held-out reward model's scores of the opponent's texts."""
    judge = context.held_out_rm(context.rows)
    if judge is None:
        return []
    answers = [
        other if isinstance(prompt, str) else [{"role": "assistant", "content": other}]
        for prompt, other in zip(pairs.prompts, pairs.others, strict=True)
    ]
    ids = list(
        context.session.formatter_for("prompts").pairs(
            list(zip(pairs.prompts, answers, strict=True))
        )
    )
    size = context.recipe.evaluation.batch_size
    scores: list[float] = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        batch = Sequences.from_lists(
            [prompt for prompt, _ in part],
            [response for _, response in part],
            context.roles.pad_token_id,
            context.roles.device,
        )
        scores += judge.scores(batch, pairs.rows[start : start + size]).tolist()
    return scores


def _endpoint(context: EvalContext, pairs: Pairs, section: JudgeEndpointSection) -> JudgeResult:
    """Ask about each pair in both orders."""
    endpoint = Endpoint(section, context.output.parent / JUDGE_CACHE_FILE)
    chosen = range(min(section.max_prompts, len(pairs.rows)))
    requests = []
    for index in chosen:
        prompt = _shown(pairs.prompts[index])
        requests.append(question(section, prompt, pairs.texts[index], pairs.others[index]))
        requests.append(question(section, prompt, pairs.others[index], pairs.texts[index]))
    context.monitor.start("eval judge", len(requests), "requests")
    replies = endpoint.ask(requests, lambda done: context.monitor.step(done, {}))
    context.monitor.finish()
    verdicts = [reply.verdict() for reply in replies]
    first = [_WON_BY_FIRST.get(verdict) for verdict in verdicts[::2]]
    won_by_other = [_WON_BY_FIRST.get(verdict) for verdict in verdicts[1::2]]
    orders = BothOrders(first, [None if won is None else 1.0 - won for won in won_by_other])
    preferences = win_rate_metrics(
        orders.outcomes(),
        pairs.texts[: len(chosen)],
        pairs.others[: len(chosen)],
        context.recipe.seed,
    )
    bias, warnings = orders.position_bias(context.recipe.seed)
    lost = len(chosen) - preferences.prompts
    if lost:
        warnings.append(
            f"{lost} of {len(chosen)} prompts have no verdict in both orders and are left out"
        )
    return JudgeResult(
        kind="endpoint",
        opponent=pairs.opponent,
        preferences=replace(preferences, warnings=[*preferences.warnings, *warnings]),
        refusals=verdicts.count("refused"),
        unparsable=verdicts.count("unparsable"),
        model=section.model,
        position_bias=bias,
    )


def judge_function(recipe: Recipe) -> UserFunction | None:
    """Import `evaluation.judge_function`; None without one.

    Raises:
        RecipeError: It cannot be imported.
    """
    name, key = recipe.evaluation.judge_function, "evaluation.judge_function"
    if name is None:
        return None
    arguments = frozenset({"prompts", "completions", "opponents"})
    return UserFunction.of(
        name, import_function(name, key), key, kind="the judge function", arguments=arguments
    )


def _function(context: EvalContext, pairs: Pairs, function: UserFunction) -> JudgeResult:
    where = f"{function.key}: {function.name}"
    wait = function.start(
        {
            **context.rows.select(pairs.rows).columns,
            "prompts": list(pairs.prompts),
            "completions": list(pairs.texts),
            "opponents": list(pairs.others),
        }
    )
    outcomes = [won for won in wait() if won is not None]
    if len(outcomes) != len(pairs.rows) or not all(0.0 <= won <= 1.0 for won in outcomes):
        raise DataError(
            f"the judge function returned {len(outcomes)} preferences for {len(pairs.rows)} pairs, or "
            "some that do not lie between 0 and 1",
            where,
            "It must return one preference per completion, from 0 (opponent) to 1 (completion).",
        )
    preferences = win_rate_metrics(outcomes, pairs.texts, pairs.others, context.recipe.seed)
    return JudgeResult("function", pairs.opponent, preferences)
