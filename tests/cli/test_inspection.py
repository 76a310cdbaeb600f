"""`show` prints a recipe with its origins; `validate` checks it and its files."""

import json

from rlhfctl.recipe.load import load_recipe


def test_show_gives_each_value_its_origin(rlhfctl, folder):
    (folder / "a.yaml").write_text("name: a\nppo:\n  beta: 0.25\n")
    done = rlhfctl("show", "a.yaml", "--set", "sft.learning_rate=1e-3", "--seed", "4")
    assert done.returncode == 0
    lines = {
        line.partition("#")[0].strip(): line.partition("# ")[2] for line in done.stdout.splitlines()
    }
    assert lines["beta: 0.25"] == "a.yaml:3"
    assert lines["learning_rate: 0.001"] == "--set"
    assert lines["seed: 4"] == "--seed"
    assert lines["gamma: 1.0"] == "default"


def test_what_show_prints_is_a_recipe_again(rlhfctl, folder):
    shown = rlhfctl("show", "small.yaml", "--set", "model.revision=no").stdout
    (folder / "again.yaml").write_text(shown)
    expected = load_recipe(folder / "small.yaml", ["model.revision=no"]).recipe
    assert load_recipe(folder / "again.yaml").recipe == expected


def test_show_as_json(rlhfctl):
    value = json.loads(rlhfctl("show", "small.yaml", "--json").stdout)
    assert value["recipe"]["seed"] == 3
    assert value["origins"]["seed"] == "small.yaml:2"


def test_show_names_all_errors_at_once(rlhfctl, folder):
    (folder / "bad.yaml").write_text("nam: x\nppo:\n  bta: 1\n  gamma: high\n")
    done = rlhfctl("show", "bad.yaml")
    assert done.returncode == 2
    for said in ("bad.yaml:1", "bad.yaml:3", "bad.yaml:4", "did you mean beta"):
        assert said in done.stderr


def test_a_valid_recipe_is_said_to_be(rlhfctl):
    done = rlhfctl("validate", "small.yaml")
    assert done.returncode == 0, done.stderr
    assert "small.yaml is valid" in done.stdout
    assert json.loads(rlhfctl("validate", "small.yaml", "--json").stdout)["ok"] is True


def test_a_bad_gate_is_a_recipe_error(rlhfctl):
    for command in ("validate", "run", "eval"):
        done = rlhfctl(command, "small.yaml", "--set", "evaluation.gates={win_rate: high}")
        assert done.returncode == 2
        assert "evaluation.gates: win_rate: 'high' is not a bound" in done.stderr


def test_a_gate_on_an_unknown_metric_is_refused_with_the_closest_name(rlhfctl):
    for command in ("validate", "run", "eval"):
        done = rlhfctl(command, "small.yaml", "--set", 'evaluation.gates={win_rte: ">=0.55"}')
        assert done.returncode == 2
        assert "win_rte" in done.stderr
        assert "did you mean win_rate?" in done.stderr


def test_a_missing_data_file_is_a_data_error(rlhfctl):
    source = "data.comparisons.source=nowhere.jsonl"
    for command in ("validate", "run"):
        done = rlhfctl(command, "small.yaml", "--set", source, "--json")
        assert done.returncode == 3
        assert "nowhere.jsonl" in json.loads(done.stdout)["errors"][0]["message"]
