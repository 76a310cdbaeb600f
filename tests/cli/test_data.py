"""`data agreement` on files of people's labels."""

import json

import pytest


@pytest.fixture
def labels(folder):
    lines = [
        {"prompt": f"Q{n}", "chosen": one, "rejected": two, "annotator": who}
        for n in range(30)
        for who, one, two in (
            ("ada", "x", "y"),
            ("ben", "x", "y"),
            ("[red]cleo", *(("y", "x") if n % 3 == 0 else ("x", "y"))),
        )
    ]
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_people_see_a_table(rlhfctl, labels):
    done = rlhfctl("data", "agreement", labels.name)
    assert done.returncode == 0, done.stderr
    for said in (
        "raw agreement",
        "0.778",
        "Krippendorff's alpha",
        "ceiling on accuracy",
        "[red]cleo",
        "Fleiss's kappa",
        "[red]cleo, ada",
        "majority first",
    ):
        assert said in done.stdout


def test_programs_get_json(rlhfctl, labels):
    done = rlhfctl("data", "agreement", labels.name, "--json")
    metrics = json.loads(done.stdout)["annotators"]
    assert metrics["agreement"] == pytest.approx((30 * 3 - 20) / 90)
    assert metrics["items"] == 30
    assert metrics["per_annotator"]["[red]cleo"]["agreement"] == pytest.approx(2 / 3)


def test_a_bad_file_is_one_sentence_and_a_data_error(rlhfctl, folder):
    (folder / "other.csv").write_text("text\nhello\n")
    for name, said in (("other.csv", "need a column votes"), ("none.csv", "no such file")):
        done = rlhfctl("data", "agreement", name)
        assert done.returncode == 3
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_columns_are_named_as_in_a_recipe(rlhfctl, folder):
    (folder / "x.csv").write_text("task,who,answer\n1,a,yes\n1,b,no\n")
    mapping = ("item=task", "annotator=who", "label=answer")
    options = [part for column in mapping for part in ("--columns", column)]
    done = rlhfctl("data", "agreement", "x.csv", "--json", *options)
    assert json.loads(done.stdout)["annotators"]["agreement"] == 0.0
    assert rlhfctl("data", "agreement", "x.csv", "--columns", "task").returncode == 2


def test_rows_are_shown_as_json(rlhfctl):
    small = ("--set", "data.demonstrations.max_rows=40")
    done = rlhfctl("data", "show", "--stage", "sft", "-n", "1", "--json", *small)
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert view["ok"]
    assert view["train"] + view["held_out"] == 40
    ((row,),) = view["rows"]
    assert row["end_trained"]


def test_an_unknown_stage_is_a_usage_error(rlhfctl):
    done = rlhfctl("data", "show", "--stage", "eval")
    assert done.returncode == 2
    assert "choose one of sft, rm, ppo" in done.stderr
