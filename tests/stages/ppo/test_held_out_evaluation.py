"""PPO watched on held-out prompts: what is written, what is kept, and what a cut changes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rlhfctl.data.sources import evaluation_prompts
from rlhfctl.errors import RecipeError
from rlhfctl.evaluation.text import repeated_ngram_share
from rlhfctl.maths.sequences import Sequences
from rlhfctl.ppo.processes import Processes
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.ppo.held_out_evaluation import HeldOutEvaluator
from rlhfctl.stages.ppo.held_out_set import held_out_prompts
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context
from rlhfctl.world.gold import gold_reward
from tests.evaluation.histories import history
from tests.pipeline.small_stages import Listener
from tests.ppo.toy import Cut, Dying
from tests.present import present

LOOKS = {"episodes": 64, "eval_rollouts": 1, "eval_prompts": 4, "save_rollouts": 1}


EVALUATED = 8


def watched(tiny_run, **changes):
    section = tiny_run.recipe.ppo.model_copy(update=LOOKS | changes)
    evaluation = tiny_run.recipe.evaluation.model_copy(update={"num_prompts": EVALUATED})
    return tiny_run.recipe.model_copy(update={"ppo": section, "evaluation": evaluation})


def inputs(tiny_run):
    return {name: tiny_run.stage(name) for name in ("sft", "rm")}


def train(tiny_run, output, monitor=None, **changes):
    output.mkdir(exist_ok=True)
    recipe = watched(tiny_run, **changes)
    return ppo.run(recipe, inputs(tiny_run), output, monitor or NullMonitor()).metrics


def lines(output):
    return [json.loads(line) for line in (output / "held_out.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tiny_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("watched") / "ppo"
    return output, train(tiny_run, output)


def test_each_rollout_is_evaluated_once_and_so_is_the_initial_policy(finished):
    output, _ = finished
    seen = [(line["rollout"], line["step"]) for line in lines(output)]
    assert seen == [(0, 0), (1, 16), (2, 32), (3, 48), (4, 64)]


def test_the_first_evaluation_is_of_the_sft_policy(finished):
    first = lines(finished[0])[0]
    assert first["each"]["kl"] == [0.0] * 4
    assert first["sqrt_kl"] == 0.0


def test_metrics_per_prompt_match_its_response(tiny_run, finished, tmp_path):
    """The last look, made again from the saved policy through roles loaded anew."""
    output, _ = finished
    recipe = watched(tiny_run)
    session = open_stage_context(recipe)
    roles = open_roles(session, inputs(tiny_run) | {"ppo": output})
    prompts = evaluation_prompts(recipe)["prompt"][EVALUATED : EVALUATED + 4]
    ids = [session.formatter.prompts_ids([prompt])[0] for prompt in prompts]
    last = lines(output)[-1]["each"]
    for row, prompt in enumerate(ids):
        (response,) = roles.generate([prompt], [(recipe.seed, row)])
        text = session.formatter.decode(response)
        batch = Sequences.from_lists([prompt], [response], roles.pad_token_id, roles.device)
        policy = roles.log_probs("policy", batch)
        reference = roles.log_probs("reference", batch).log_probs
        assert last["length"][row] == len(response)
        assert last["true_reward"][row] == gold_reward(prompts[row][-1]["content"], text)
        assert last["proxy"][row] == pytest.approx(float(roles.scores(batch)), abs=1e-5)
        clipped = min(max(float(roles.scores(batch)), -5.0), 5.0)
        ended = response[-1] in session.stop_token_ids
        assert last["objective_score"][row] == pytest.approx(clipped if ended else -1.0, abs=1e-5)
        assert last["kl"][row] == pytest.approx(
            float((policy.log_probs - reference).sum()), abs=1e-5
        )
        assert last["entropy"][row] == pytest.approx(float(policy.entropy.mean()), abs=1e-5)
        assert last["repetition"][row] == repeated_ngram_share(text.split(), 3)


def test_held_out_prompts_exclude_those_of_the_evaluation(tiny_run):
    """A best checkpoint is not judged by the prompts that chose it."""
    recipe = watched(tiny_run)
    found = present(held_out_prompts(open_stage_context(recipe), NullMonitor()))
    assert list(found["prompt"]) == list(
        evaluation_prompts(recipe)["prompt"][EVALUATED : EVALUATED + 4]
    )


def test_the_best_policy_is_a_checkpoint_of_its_own(tiny_run, finished):
    output, metrics = finished
    gold = [line["true_reward"] for line in lines(output)]
    best = metrics["over_optimisation"]["best"]
    assert best["rollout"] == lines(output)[gold.index(max(gold))]["rollout"]
    session = open_stage_context(tiny_run.recipe)
    assert open_roles(session, inputs(tiny_run) | {"ppo": output / "best"})
    weights = [load_file(path / "adapter_model.safetensors") for path in (output, output / "best")]
    same = all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert same == (best["rollout"] == 4)
    assert not list(output.glob(".best-*"))


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (None, [4]),
        ("rollout-00000003", [3, 4]),
        ("rollout-00000003-000005", [3, 4]),
        ("rollout-00000002-evaluation", [2, 3, 4]),
    ],
)
def test_of_earlier_best_policies_only_those_that_a_resumed_run_needs_stay(
    tmp_path, checkpoint, expected
):
    """Improvements at rollouts 1 to 4, and a checkpoint that training could resume from."""
    if checkpoint is not None:
        (tmp_path / "checkpoints" / checkpoint).mkdir(parents=True)
    watching = SimpleNamespace(true_reward="gold")
    saved = HeldOutEvaluator(
        watching,  # type: ignore[arg-type]
        PPOSection(),
        tmp_path,
        lambda folder: (folder / "adapter_model.safetensors").touch(),
        Processes(),
        NullMonitor(),
    )
    rewards = np.arange(5.0)[:, None] + np.zeros(8)
    for line in history({"true_reward": rewards})[1:]:
        saved.history.append(line)
        saved._keep_best()
    assert [int(path.name[-1]) for path in saved._best_folders()] == expected


def test_load_best_model_at_end_makes_the_best_policy_the_result(tiny_run, finished, tmp_path):
    metrics = train(tiny_run, tmp_path / "ppo", load_best_model_at_end=True)
    best = metrics["over_optimisation"]["best"]
    assert [metrics["result"][name] for name in ("step", "kl")] == [best["step"], best["kl"]]
    kept = (finished[0] / "best" / "adapter_model.safetensors").read_bytes()
    assert (tmp_path / "ppo" / "adapter_model.safetensors").read_bytes() == kept
    assert (tmp_path / "ppo" / "best" / "adapter_model.safetensors").read_bytes() == kept


def test_the_metrics_of_the_result_are_those_of_the_last_evaluation(finished):
    output, metrics = finished
    last = lines(output)[-1]
    names = ("step", "kl", "kl_low", "proxy", "objective_score", "true_reward", "length")
    assert {name: metrics["result"][name] for name in names} == {name: last[name] for name in names}
    assert metrics["result"]["eos_share"] == last["eos_share"]


@pytest.mark.parametrize("after", [2, 4])
def test_a_resumed_run_logs_the_same_evaluations_as_an_uninterrupted_one(
    tiny_run, finished, tmp_path, after
):
    output, metrics = finished
    with pytest.raises(Cut):
        train(tiny_run, tmp_path / "ppo", Dying(after))
    resumed = train(tiny_run, tmp_path / "ppo")
    assert resumed["over_optimisation"] == metrics["over_optimisation"]
    for name in ("held_out.jsonl", "best/adapter_model.safetensors", "adapter_model.safetensors"):
        assert (tmp_path / "ppo" / name).read_bytes() == (output / name).read_bytes()


def elsewhere(recipe, folder, **evaluation):
    """The recipe with the same kind of prompts from a file, so that no gold reward is known."""
    prompts = folder / "prompts.jsonl"
    rows = [{"prompt": prompt} for prompt in evaluation_prompts(recipe)["prompt"]]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = recipe.data.prompts.model_copy(update={"source": str(prompts), "held_out": 0.5})
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"prompts": source}),
            "evaluation": recipe.evaluation.model_copy(update=evaluation),
        }
    )


def test_early_stopping_needs_a_true_reward(tiny_run, tmp_path):
    recipe = elsewhere(watched(tiny_run, early_stop="stop"), tmp_path)
    with pytest.raises(RecipeError, match="there is no true reward"):
        ppo.run(recipe, inputs(tiny_run), tmp_path, NullMonitor())


def test_the_held_out_reward_model_is_the_true_reward_without_gold(tiny_run, tmp_path):
    """The very model that PPO is trained on stands in, so the two scores must be the same."""
    judge = str(tiny_run.stage("rm"))
    recipe = elsewhere(watched(tiny_run, episodes=16), tmp_path, judge_rm=judge)
    metrics = ppo.run(recipe, inputs(tiny_run), tmp_path, NullMonitor()).metrics
    assert metrics["over_optimisation"]["true_reward"] == "held_out_rm"
    for line in lines(tmp_path):
        assert line["each"]["true_reward"] == line["each"]["proxy"]


def test_a_stop_by_an_alarm_returns_the_best_policy_and_says_so(tiny_run, tmp_path):
    """A KL alarm at the least KL: it needs no significance, so that few prompts suffice."""
    listener = Listener()
    changes = {"on_alarm": "stop", "kl_alarm": 1e-9}
    metrics = train(tiny_run, tmp_path / "ppo", listener, **changes)
    (act,) = metrics["over_optimisation"]["acts"]
    last, best = lines(tmp_path / "ppo")[-1], metrics["over_optimisation"]["best"]
    assert (act["kind"], act["step"], act["alarms"]) == ("stop", last["step"], ["kl"])
    assert metrics["episodes"] == last["step"] < LOOKS["episodes"]
    assert metrics["result"]["step"] == best["step"]
    result, kept = (
        (tmp_path / "ppo" / name / "adapter_model.safetensors").read_bytes()
        for name in ("", "best")
    )
    assert result == kept
    assert f"On alarm kl at episode {last['step']}: PPO stops" in listener.warnings


def test_without_a_true_reward_a_stop_returns_the_policy_of_the_last_clean_evaluation(
    tiny_run, tmp_path
):
    recipe = elsewhere(watched(tiny_run, on_alarm="stop", kl_alarm=1e-9), tmp_path)
    metrics = ppo.run(recipe, inputs(tiny_run), tmp_path, NullMonitor()).metrics
    (act,) = metrics["over_optimisation"]["acts"]
    clean = next(line for line in reversed(lines(tmp_path)) if line["kl"] <= 1e-9)
    assert act["restored_step"] == clean["step"] < act["step"]
    assert {name: metrics["result"][name] for name in ("step", "kl")} == {
        name: clean[name] for name in ("step", "kl")
    }
