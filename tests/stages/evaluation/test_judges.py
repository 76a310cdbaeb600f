"""Judges in an evaluation: who is asked, about which pairs, and what the metrics then say."""

import json
import shutil
from dataclasses import replace

import pytest

from rlhfctl.data.rows import content
from rlhfctl.data.sources import load_demonstrations
from rlhfctl.errors import DataError, RecipeError
from rlhfctl.evaluation.policies import Responses
from rlhfctl.recipe.judges import JudgeEndpointSection
from rlhfctl.recipe.permissions import ALLOW_CODE
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.evaluation import Comparison
from rlhfctl.results.io import to_json
from rlhfctl.results.training import RewardModelResult
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.evaluation import stage as evaluation
from rlhfctl.stages.evaluation.context import EvalContext
from rlhfctl.stages.evaluation.judges import at_equal_length, judge_function, judges
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_sources import RewardSources
from rlhfctl.stages.shared.stage_context import open_stage_context
from tests.conftest import tiny_recipe
from tests.present import present

MODULE = """
def prefers_short(prompts, completions, opponents):
    return [float(len(mine) < len(theirs)) for mine, theirs in zip(completions, opponents)]

def too_sure(prompts, completions, opponents):
    return [2.0 for _ in completions]

def too_few(prompts, completions, opponents):
    return [1.0]

def broken(prompts, completions, opponents):
    return [1 / 0 for _ in completions]

async def knows(completions, opponents, solution):
    return [float(mine == right) for mine, right in zip(completions, solution)]
"""
PROMPTS = [[{"role": "user", "content": f"Question {number}?"}] for number in range(8)]
GOOD = [f"A good answer to {number}." for number in range(8)]
BAD = [f"A bad answer, {number}." for number in range(8)]


class Warned(NullMonitor):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def responses(texts, **more):
    zeros = [0.0] * len(texts)
    return Responses(texts=texts, kl=zeros, lengths=zeros, ended=zeros, **more)


def context(folder, ppo, sft, prompts=PROMPTS, inputs=None, columns=None, **evaluation):
    recipe = tiny_recipe()
    section = recipe.evaluation.model_copy(update=evaluation)
    recipe = recipe.model_copy(update={"evaluation": section})
    (folder / "eval").mkdir(exist_ok=True)
    judging = judge_function(recipe)
    return EvalContext(
        session=open_stage_context(recipe),
        inputs=inputs or {},
        roles=None,  # type: ignore[arg-type]
        prompts=prompts,
        prompt_ids=[],
        policies={"sft": sft, "ppo": ppo},
        output=folder / "eval",
        monitor=Warned(),
        sources=RewardSources.open(recipe.ppo),
        rows=PromptRows(prompts, columns or {}),
        judge_function=judging,
    )


def endpoint(server, **keys):
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return JudgeEndpointSection(url=url, model="judge", backoff=0.01, **keys)


def judges_json(context):
    """Return each judge's result as JSON."""
    return {name: to_json(result) for name, result in present(judges(context)).items()}


def likes_good(body):
    """A judge that prefers good answers wherever they stand."""
    asked = body["messages"][1]["content"]
    first = asked.index("Answer A:"), asked.index("Answer B:")
    return "[[A]]" if "good" in asked[first[0] : first[1]] else "[[B]]"


def test_a_judge_that_sees_the_better_answer_finds_it_in_both_orders(chat_server, tmp_path):
    chat_server.judge = likes_good
    asked = context(tmp_path, responses(GOOD), responses(BAD), judge_endpoint=endpoint(chat_server))
    judge = judges_json(asked)["endpoint"]
    assert (judge["kind"], judge["opponent"], judge["model"]) == ("endpoint", "sft", "judge")
    assert (judge["wins"], judge["ties"], judge["losses"], judge["prompts"]) == (8, 0, 0, 8)
    assert judge["win_rate"] == 1.0
    assert judge["position_bias"]["first_share"] == 0.5
    assert len(chat_server.asked) == 16
    again = judges_json(asked)["endpoint"]
    assert again == judge
    assert len(chat_server.asked) == 16, "a second evaluation asks nothing again"


def test_a_judge_that_always_says_a_is_found_out(chat_server, tmp_path):
    asked = context(tmp_path, responses(GOOD), responses(BAD), judge_endpoint=endpoint(chat_server))
    judge = judges_json(asked)["endpoint"]
    assert judge["position_bias"]["first_share"] == 1.0
    assert judge["ties"] == 8
    assert judge["win_rate"] == 0.5
    assert any("shown first" in warning for warning in asked.monitor.warnings)


def test_refusals_and_garbage_are_counted_and_their_prompts_left_out(chat_server, tmp_path):
    chat_server.judge = likes_good
    chat_server.answers = ["I'm sorry, I can't.", "[[B]]", "hm", "hm", "[[C]]", "[[C]]"]
    section = endpoint(chat_server, concurrency=1, max_prompts=5)
    asked = context(tmp_path, responses(GOOD), responses(BAD), judge_endpoint=section)
    judge = judges_json(asked)["endpoint"]
    assert (judge["refusals"], judge["unparsable"]) == (1, 2)
    assert (judge["wins"], judge["ties"], judge["losses"], judge["prompts"]) == (2, 1, 0, 3)
    assert any("2 of 5 prompts" in warning for warning in judge["warnings"])


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_judges.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOW_CODE, "1")
    return tmp_path


def test_a_function_judges_under_its_own_name(here):
    name = "my_judges:prefers_short"
    asked = context(here, responses(GOOD), responses(BAD), judge_function=name)
    judge = judges_json(asked)["prefers_short"]
    assert (judge["kind"], judge["losses"]) == ("function", 8)


def test_a_judge_function_gets_the_columns_of_the_prompts(here):
    columns = {"solution": [*GOOD[:6], "", ""]}
    name = "my_judges:knows"
    asked = context(here, responses(GOOD), responses(BAD), columns=columns, judge_function=name)
    judge = judges_json(asked)["knows"]
    assert (judge["wins"], judge["losses"]) == (6, 2)


@pytest.mark.parametrize("name", ["too_sure", "too_few", "broken"])
def test_a_function_that_gives_no_preference_a_pair_is_named(here, name):
    asked = context(here, responses(GOOD), responses(BAD), judge_function=f"my_judges:{name}")
    with pytest.raises(DataError) as raised:
        judges(asked)
    assert raised.value.where == f"evaluation.judge_function: my_judges:{name}"


def test_a_function_that_is_not_there_is_named_by_its_key(here):
    with pytest.raises(RecipeError) as raised:
        context(here, responses(GOOD), responses(BAD), judge_function="my_judges:absent")
    assert "evaluation.judge_function" in raised.value.where


def test_the_held_out_model_judges_by_its_scores_and_shows_its_own_accuracy(tmp_path):
    own = to_json(
        RewardModelResult(
            accuracy=Estimate(0.7, 0.6, 0.8),
            length_accuracy=Estimate(0.5, 0.4, 0.6),
            pairs=90,
            mean_margin=0.5,
            score_min=-2.0,
            score_max=2.0,
            train_loss=0.6,
            train_rows=400,
            steps=20,
        )
    )
    (tmp_path / "rm" / "judge").mkdir(parents=True)
    (tmp_path / "rm" / "judge" / "metrics.json").write_text(json.dumps(own))
    ppo = responses(GOOD, held_out_rm=[1, 1, 1, 1, 1, 0, 0, -1])
    sft = responses(BAD, held_out_rm=[0.0] * 8)
    judge = judges_json(context(tmp_path, ppo, sft, inputs={"rm": tmp_path / "rm"}))
    (judge,) = judge.values()
    assert (judge["wins"], judge["ties"], judge["losses"]) == (5, 2, 1)
    assert judge["accuracy"] == {"accuracy": 0.7, "low": 0.6, "high": 0.8, "pairs": 90}


def test_gold_and_proxy_have_a_rate_at_equal_length_without_any_judge(tmp_path):
    ppo = responses(GOOD, gold=[1.0] * 8, proxy=[0.0] * 8)
    sft = responses(BAD, gold=[0.0] * 8, proxy=[0.0] * 8)
    metrics = to_json(at_equal_length(Comparison(), context(tmp_path, ppo, sft)))
    assert "judges" not in metrics
    assert metrics["gold_length_controlled_win_rate"] > 0.9
    assert metrics["proxy_length_controlled_win_rate"] == 0.5


def test_without_a_policy_nothing_is_compared(tmp_path):
    asked = context(tmp_path, responses(GOOD), responses(BAD))
    alone = replace(asked, policies={"sft": responses(BAD)})
    assert judges(alone) is None


def test_references_are_held_out_demonstrations_of_the_same_prompts(here):
    rows = load_demonstrations(tiny_recipe()).held_out
    known = rows["prompt"][0]
    asked = context(
        here,
        responses(["x", "y"]),
        responses(["x", "y"]),
        prompts=[PROMPTS[0], known],
        judge_function="my_judges:prefers_short",
        opponent="references",
    )
    judge = judges_json(asked)["prefers_short"]
    assert (judge["opponent"], judge["prompts"], judge["wins"]) == ("references", 1, 1)
    (line,) = (asked.output / "answers.jsonl").read_text().splitlines()
    assert json.loads(line)["opponent"] == content(rows["completion"][0])
    none = context(here, responses(GOOD), responses(BAD), opponent="references")
    assert judges(none) is None
    assert "no held-out prompt has a demonstration" in none.monitor.warnings[0]


def test_a_whole_evaluation_scores_answers_and_references_by_a_held_out_model(tiny_run, tmp_path):
    shutil.copytree(tiny_run.stage("rm"), tmp_path / "another")
    # One file of demonstrations for both, so that every held-out prompt has a reference.
    rows = load_demonstrations(tiny_recipe()).train
    lines = [json.dumps({"prompt": row["prompt"], "completion": row["completion"]}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = tiny_recipe(
        f"evaluation.judge_rm={tmp_path / 'another'}",
        f"data.demonstrations.source={tmp_path / 'rows.jsonl'}",
        f"data.prompts.source={tmp_path / 'rows.jsonl'}",
        "data.demonstrations.held_out=0.3",
        "data.prompts.held_out=0.3",
        "data.comparisons.held_out=0.3",
    )
    inputs = {name: tiny_run.stage(name) for name in ("sft", "rm", "ppo")}
    for opponent in ("sft", "references"):
        section = recipe.evaluation.model_copy(update={"opponent": opponent})
        output = tmp_path / opponent
        output.mkdir()
        chosen = recipe.model_copy(update={"evaluation": section})
        metrics = evaluation.run(chosen, inputs, output, NullMonitor()).metrics
        judge = metrics["judges"]["held_out_rm"]
        assert judge["opponent"] == opponent
        if opponent == "sft":
            # The same weights as the proxy: the same winners.
            assert judge["win_rate"] == pytest.approx(metrics["proxy_win_rate"])
            assert judge["prompts"] == metrics["prompts"]
        else:
            assert judge["prompts"] == metrics["prompts"] > 2
