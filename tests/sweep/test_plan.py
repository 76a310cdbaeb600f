"""Stages shared by the points of a sweep, determined from their recipes."""

import pytest

from rlhfctl.errors import UsageError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.sweep.plan import make_plan


@pytest.fixture
def plan(tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text("name: small\n")

    def make(*points, overrides=()):
        return make_plan(recipe, overrides, points, tmp_path / "runs" / "small-sweep")

    return make


def shared(plan):
    return [(job.name[7:].rpartition("-")[0], plan.sharers(job)) for job in plan.shared]


def test_what_ppo_alone_reads_leaves_one_sft_and_one_reward_model(plan, tmp_path):
    found = plan({"ppo.beta": "0"}, {"ppo.beta": "0.1"}, {"ppo.beta": "0.2"})
    assert shared(found) == [("sft", [0, 1, 2]), ("rm", [0, 1, 2])]
    sft, rm = (tmp_path / "runs" / "small-sweep" / job.name for job in found.shared)
    for point in found.points:
        assert point.job.stages == ("ppo", "eval")
        assert point.job.recipe.name == point.job.name
        assert point.job.recipe.ppo.sft == str(sft / "sft")
        assert point.job.recipe.ppo.rm == str(rm / "rm")
    assert found.shared[1].recipe.reward_model.sft == str(sft / "sft")
    assert [job.needs for job in found.shared] == [(), (sft.name,)]


def test_each_seed_has_its_own(plan):
    found = plan(*({"ppo.beta": beta, "seed": seed} for seed in "01" for beta in "01"))
    assert shared(found) == [("sft", [0, 1]), ("rm", [0, 1]), ("sft", [2, 3]), ("rm", [2, 3])]


def test_a_sweep_of_the_reward_model_shares_sft_alone(plan):
    found = plan(*({"reward_model.learning_rate": rate} for rate in ("1e-4", "2e-4")))
    assert shared(found) == [("sft", [0, 1]), ("rm", [0]), ("rm", [1])]


def test_what_sft_is_made_from_leaves_nothing_to_share(plan):
    found = plan({"sft.learning_rate": "1e-4"}, {"sft.learning_rate": "2e-4"})
    assert shared(found) == [("sft", [0]), ("rm", [0]), ("sft", [1]), ("rm", [1])]


def test_best_of_n_is_asked_of_the_shared_sft_and_of_no_point(plan):
    found = plan({"ppo.beta": "0"}, {"ppo.beta": "1"}, overrides=["evaluation.best_of_n=4"])
    assert shared(found) == [("sft", [0, 1]), ("rm", [0, 1]), ("best-of-n", [0, 1])]
    assert found.shared[2].recipe.evaluation.best_of_n == 4
    assert {point.job.recipe.evaluation.best_of_n for point in found.points} == {0}


def test_checkpoints_that_the_recipe_names_are_not_made_again(plan):
    found = plan({"ppo.beta": "0"}, {"ppo.beta": "1"}, overrides=["ppo.sft=here", "ppo.rm=there"])
    assert found.shared == ()
    assert {point.job.recipe.ppo.sft for point in found.points} == {"here"}


def test_shared_runs_keep_their_names_when_the_sweep_grows(plan):
    small = plan({"ppo.beta": "0"}, {"ppo.beta": "1"})
    large = plan(*({"ppo.beta": beta, "seed": seed} for seed in "01" for beta in "012"))
    assert {job.name for job in small.shared} <= {job.name for job in large.shared}


def test_settings_are_given_as_the_recipe_reads_them(plan):
    found = plan({"ppo.beta": "1e-2", "lora": "null", "ppo.kl_stop": "null"}, {"ppo.beta": "0"})
    assert found.points[0].settings == {"ppo.beta": 0.01, "lora": None, "ppo.kl_stop": None}


def test_the_sweep_section_is_no_part_of_any_stage(plan, tmp_path):
    text = (tmp_path / "small.yaml").read_text()
    before = plan({"ppo.beta": "0"}, {"ppo.beta": "1"})
    (tmp_path / "small.yaml").write_text(text + "sweep: {set: {ppo.beta: [5]}, zip: true}\n")
    assert load_recipe(tmp_path / "small.yaml").recipe.sweep.set == {"ppo.beta": [5]}
    after = plan({"ppo.beta": "0"}, {"ppo.beta": "1"})
    assert [job.name for job in after.shared] == [job.name for job in before.shared]


def test_two_points_that_mean_the_same_are_refused(plan):
    with pytest.raises(UsageError, match=r"beta-0 and beta-0\.0"):
        plan({"ppo.beta": "0"}, {"ppo.beta": "0.0"})


def test_a_policy_that_is_there_leaves_nothing_to_sweep(plan):
    with pytest.raises(UsageError, match=r"evaluation\.ppo"):
        plan({"ppo.beta": "0"}, {"ppo.beta": "1"}, overrides=["evaluation.ppo=there"])
