"""Runs of a comparison: what methods share, what each changes, and what is refused."""

from pathlib import Path

import pytest

from rlhfctl.errors import RecipeError, UsageError
from rlhfctl.sweep.methods_plan import METHODS, make_methods_plan, read_methods
from tests.conftest import BASE_RECIPE

ALL = ["ppo", "rloo", "grpo", "batch_mean", "dpo", "best_of_n"]


def planned(methods=ALL, *overrides, seeds=1, root=Path("out")):
    return make_methods_plan(BASE_RECIPE, overrides, methods, seeds, root)


def test_sft_and_reward_model_are_trained_once_per_seed_and_read_by_every_method():
    plan = planned(seeds=2)
    kinds = [job.name.rsplit("-", 1)[0] for job in plan.shared]
    assert kinds == ["shared-sft", "shared-rm"] * 2
    assert [job.recipe.seed for job in plan.shared] == [0, 0, 1, 1]
    assert len({job.name for job in plan.jobs}) == len(plan.jobs)
    for method in plan.methods:
        sft, rm = (job.name for job in plan.shared if job.recipe.seed == method.seed)
        for job in method.jobs:
            recipe = job.recipe
            assert recipe.seed == method.seed
            for name, path in (
                ("sft", recipe.ppo.sft),
                ("sft", recipe.dpo.sft),
                ("rm", recipe.ppo.rm),
            ):
                assert path == str((Path("out") / (sft if name == "sft" else rm) / name).absolute())
            assert sft in job.needs


def test_methods_differ_in_nothing_but_themselves():
    plan = planned()
    by_method = {method.method: method for method in plan.methods}
    ppo, rloo, grpo, mean = (by_method[name].jobs[0].recipe.ppo for name in ALL[:4])
    assert [ppo.advantage_estimator, rloo.advantage_estimator] == ["gae", "rloo"]
    assert [grpo.advantage_estimator, mean.advantage_estimator] == ["grpo", "batch_mean"]
    assert [part.responses_per_prompt for part in (ppo, rloo, grpo, mean)] == [1, 4, 4, 1]
    assert [part.whiten_advantages for part in (ppo, rloo, grpo, mean)] == [
        True,
        False,
        False,
        True,
    ]
    own = {"advantage_estimator", "responses_per_prompt", "whiten_advantages"}
    first = ppo.model_dump(exclude=own)
    assert all(part.model_dump(exclude=own) == first for part in (rloo, grpo, mean))
    for name in ALL[:4]:
        (job,) = by_method[name].jobs
        assert (job.command, job.stages) == ("run", ("ppo", "eval"))
        assert job.recipe.evaluation.best_of_n == 0


def test_dpo_has_a_run_and_an_evaluation_per_beta_and_the_recipes_own_is_its_result():
    (dpo,) = planned(["dpo"]).methods
    assert [job.recipe.dpo.beta for job in dpo.training] == pytest.approx(
        [0.1, 1 / 30, 0.3], rel=1e-4
    )
    for training, evaluation in zip(dpo.training, dpo.evaluations, strict=True):
        assert (training.command, evaluation.command) == ("dpo", "eval")
        folder = str((Path("out") / training.name / "dpo").absolute())
        assert evaluation.recipe.evaluation.ppo == folder
        assert training.name in evaluation.needs
        assert all(name.startswith("shared-sft") for name in training.needs), "no reward model"
    assert all(name.startswith("shared-sft") for name in dpo.needs)


def test_best_of_n_is_evaluated_on_all_prompts_without_training():
    (plan,) = planned(["best_of_n"], "evaluation.num_prompts=40").methods
    assert plan.training == ()
    (job,) = plan.evaluations
    assert (job.command, job.recipe.evaluation.best_of_n) == ("eval", 16)
    assert job.recipe.evaluation.best_of_n_prompts == 40
    (own,) = planned(["best_of_n"], "evaluation.best_of_n=8").methods
    assert own.evaluations[0].recipe.evaluation.best_of_n == 8


@pytest.mark.parametrize(
    ("override", "where", "word"),
    [
        ("ppo.sft=/x", "ppo.sft", "itself"),
        ("evaluation.ppo=/x", "evaluation.ppo", "itself"),
        ("ppo.eval_rollouts=null", "ppo.eval_rollouts", "equal KL"),
        ("ppo.reward_sources=[{source: 'a:b'}]", "ppo.reward_sources", "reward model"),
        ("data.prompts.source=x.jsonl", "reward_model.judge_share", "independent"),
    ],
)
def test_what_cannot_be_compared_is_refused(override, where, word):
    with pytest.raises(RecipeError, match=word) as error:
        planned(["ppo"], override)
    assert error.value.where == where


def test_the_held_out_reward_model_judges_where_there_is_no_gold():
    plan = planned(["ppo"], "data.prompts.source=x.jsonl", "reward_model.judge_share=0.2")
    assert plan.judge == "held_out_rm"


def test_a_rollout_that_groups_do_not_fill_is_refused_by_name():
    with pytest.raises(RecipeError, match=r"multiple of responses_per_prompt \(4\)"):
        planned(["rloo"], "ppo.rollout_batch_size=6", "ppo.minibatch_size=6")


def test_names_of_methods():
    assert read_methods("dpo, ppo") == ["dpo", "ppo"]
    assert set(ALL) == set(METHODS)
    with pytest.raises(UsageError, match="no method dpp"):
        read_methods("ppo,dpp")
    with pytest.raises(UsageError, match="no method without a name"):
        read_methods("")
    with pytest.raises(UsageError, match="twice"):
        read_methods("ppo,ppo")
