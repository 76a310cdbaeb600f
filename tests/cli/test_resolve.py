"""The recipe and the run folder that a command chooses and reports."""

import os

import pytest

from rlhfctl.cli.options import RunOptions, absolute_path, key_overrides
from rlhfctl.cli.resolve import VARIABLE, newest_run, resolve
from rlhfctl.errors import RecipeError, UnsafeError, UsageError
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.sealed import with_digest_line


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def recipe(path, name="some", more=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"name: {name}\n{more}")
    return path


def a_run(place, name, age):
    path = recipe(place / "runs" / name / "recipe.yaml", name)
    os.utime(path, (1e9 - age, 1e9 - age))


def chosen(**options):
    resolved = resolve(RunOptions(**options))
    return str(resolved.choice.path), resolved.choice.reason, str(resolved.directory.root)


def test_the_order_is_argument_variable_newest_run_base(place, monkeypatch):
    shipped, reason, root = chosen()
    assert shipped.endswith("recipes/base.yaml")
    assert "shipped" in reason
    assert root == "runs/base"

    recipe(place / "recipes" / "base.yaml", "mine")
    assert chosen() == ("recipes/base.yaml", "default", "runs/mine")

    a_run(place, "old", age=100)
    a_run(place, "new", age=1)
    a_run(place, "older", age=200)
    assert chosen() == ("runs/new/recipe.yaml", "newest run", "runs/new")

    monkeypatch.setenv(VARIABLE, str(recipe(place / "env.yaml", "env")))
    assert chosen() == (str(place / "env.yaml"), VARIABLE, "runs/env")

    argument = recipe(place / "arg.yaml", "arg")
    assert chosen(recipe=argument) == (str(argument), "argument", "runs/arg")


def test_a_named_run_that_is_there_brings_its_own_recipe(place):
    a_run(place, "old", age=100)
    a_run(place, "new", age=1)
    assert chosen(run="old") == ("runs/old/recipe.yaml", "run old", "runs/old")


def test_a_named_run_that_is_new_takes_the_next_in_order_and_gives_it_its_name(place):
    a_run(place, "new", age=1)
    path, _, root = chosen(run="fresh")
    assert (path, root) == ("runs/new/recipe.yaml", "runs/fresh")
    assert resolve(RunOptions(run="fresh")).loaded.recipe.name == "fresh"


def test_the_recipe_of_a_run_given_as_argument_works_in_that_run(place):
    a_run(place, "old", age=100)
    recipe(place / "runs" / "old" / "recipe.yaml", "another-name")
    assert chosen(recipe=place / "runs" / "old" / "recipe.yaml")[2] == "runs/old"


def test_runs_may_lie_elsewhere(place):
    recipe(place / "elsewhere" / "one" / "recipe.yaml", "one")
    assert chosen(runs_dir=place / "elsewhere")[2] == str(place / "elsewhere" / "one")


def test_folders_that_are_no_runs_are_passed_over(place):
    recipe(place / "runs" / ".hidden" / "recipe.yaml")
    (place / "runs" / "empty").mkdir()
    assert newest_run(place / "runs") is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-a", "A", "x" * 65, "a\n"])
def test_a_run_name_cannot_lead_elsewhere(name):
    with pytest.raises(UsageError, match="invalid run name"):
        resolve(RunOptions(run=name))


def test_a_recipe_that_is_not_there_is_named(place):
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        resolve(RunOptions(recipe=place / "missing.yaml"))


def test_options_go_over_set_and_set_over_the_file(place):
    path = recipe(place / "a.yaml", more="seed: 1\nppo:\n  beta: 0.2\n")
    overrides = key_overrides(("--beta", "ppo.beta", "0.4"), ("--sft", "ppo.sft", None))
    options = RunOptions(recipe=path, set=["ppo.beta=0.3", "seed=2"], seed="5", overrides=overrides)
    resolved = resolve(options)
    assert resolved.loaded.recipe.ppo.beta == 0.4
    assert resolved.loaded.recipe.seed == 5
    assert resolved.loaded.origins["ppo.beta"] == "--beta"
    assert resolved.loaded.origins["seed"] == "--seed"


def test_an_option_of_the_wrong_type_is_a_recipe_error(place):
    with pytest.raises(RecipeError, match="--seed"):
        resolve(RunOptions(recipe=recipe(place / "a.yaml"), seed="soon"))


def test_a_path_that_exists_is_written_down_in_full_and_a_hub_id_as_it_is(place):
    (place / "adapter").mkdir()
    assert absolute_path("adapter") == str(place / "adapter")
    assert absolute_path("org/name") == "org/name"
    assert absolute_path(None) is None


def test_a_runs_recipe_that_was_edited_is_used_only_if_it_is_named(place):
    a_run(place, "old", age=1)
    path = place / "runs" / "old" / "recipe.yaml"
    path.write_text(with_digest_line("name: old\nseed: 1\n"))
    assert resolve(RunOptions(run="old")).loaded.recipe.seed == 1
    path.write_text(path.read_text().replace("seed: 1", "seed: 2"))
    for options in (RunOptions(run="old"), RunOptions()):
        with pytest.raises(RecipeError, match="edited or damaged") as caught:
            resolve(options)
        assert "runs/old/recipe.yaml" in str(caught.value)
    assert resolve(RunOptions(recipe=path)).loaded.recipe.seed == 2


def test_latest_stands_for_the_run_that_it_leads_to(place):
    a_run(place, "old", age=100)
    a_run(place, "new", age=1)
    RunDirectory(place / "runs" / "old").link_latest()
    assert chosen(run="latest") == ("runs/old/recipe.yaml", "run old", "runs/old")
    assert chosen() == ("runs/new/recipe.yaml", "newest run", "runs/new")
    named = place / "runs" / "latest" / "recipe.yaml"
    assert chosen(recipe=named)[2] == "runs/old"


def test_latest_is_no_name_for_a_run(place):
    with pytest.raises(UsageError, match="no run has begun"):
        resolve(RunOptions(run="latest"))
    with pytest.raises(RecipeError, match="cannot be latest"):
        resolve(RunOptions(recipe=recipe(place / "a.yaml", "latest")))


def test_a_link_out_of_the_directory_for_runs_is_refused(place):
    a_run(place, "new", age=1)
    recipe(place / "elsewhere" / "recipe.yaml", "elsewhere")
    (place / "runs" / "latest").symlink_to("../elsewhere")
    with pytest.raises(UnsafeError, match="not to a run beside it"):
        resolve(RunOptions(run="latest"))
    assert chosen()[2] == "runs/new"
