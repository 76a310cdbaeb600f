"""`rlhfctl runs` and `rlhfctl watch`, on runs of real processes."""

import json
import shutil

import pytest

from rlhfctl.errors import UsageError
from rlhfctl.run.directory import RunDirectory
from rlhfctl.run.listing import overview, removable


@pytest.fixture
def runs(whole_run, folder):
    """A runs folder with a whole run, a copy of it of another seed, and a link as `latest`."""
    made, _ = whole_run
    shutil.copytree(made / "runs", folder / "runs", symlinks=True)
    root = folder / "runs"
    shutil.copytree(root / "small", root / "other")
    recipe = root / "other" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 3", "seed: 4"))
    (root / "latest").unlink(missing_ok=True)
    (root / "latest").symlink_to("small")
    (root / "notes").mkdir()
    return root


def test_the_list_has_runs_only(rlhfctl, runs):
    listed = json.loads(rlhfctl("runs", "list", "--json").stdout)["runs"]
    assert {run["name"] for run in listed} == {"small", "other"}
    assert {run["state"] for run in listed} == {"finished"}
    assert listed[0]["finished"] == ["sft", "rm", "ppo", "eval"]
    assert listed[0]["metrics"]["win_rate"] > 0
    assert listed[0]["size_bytes"] > 0
    shown = rlhfctl("runs").stdout
    assert shown.splitlines()[0].split() == ["run", "state", "stage", "changed", "size", "metrics"]
    assert "Evaluation" in shown
    assert "win rate" in shown


def test_one_run_is_shown_with_its_verdict_and_stages(rlhfctl, runs):
    shown = rlhfctl("runs", "show", "small").stdout
    assert shown.startswith("small: finished, ")
    assert "Reward model  held-out accuracy 80.0%" in shown
    value = json.loads(rlhfctl("runs", "show", "runs/latest", "--json").stdout)
    assert value["report"]["verdict"]["level"]


def test_two_runs_differ_in_settings_and_metrics(rlhfctl, runs):
    shown = rlhfctl("runs", "diff", "small", "other").stdout.splitlines()
    assert [line.split() for line in shown[:2]] == [
        ["setting", "small", "other"],
        ["seed", "3", "4"],
    ]
    assert ["rm.accuracy", "0.8", "0.8", "0"] in [line.split() for line in shown]
    value = json.loads(rlhfctl("runs", "diff", "small", "other", "--all", "--json").stdout)
    assert value["settings"] == {"seed": ["3", "4"]}
    assert value["metrics"]["rm.pairs"] == [8, 8]


def test_a_run_is_removed_and_links_are_not_followed(rlhfctl, runs, folder):
    outside = folder / "precious"
    outside.mkdir()
    (outside / "model").write_text("weights")
    (runs / "other" / "linked").symlink_to(outside)
    done = rlhfctl("runs", "rm", "other", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("removed runs/other (")
    assert sorted(path.name for path in runs.iterdir()) == ["latest", "notes", "small"]
    assert (outside / "model").read_text() == "weights"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("latest", "is a link"),
        ("notes", "is no run of rlhfctl"),
        ("absent", "run not found"),
        ("../precious", "not the name of a run"),
        ("..", "not the name of a run"),
    ],
)
def test_what_is_no_run_of_the_folder_is_not_removed(runs, name, error):
    with pytest.raises(UsageError, match=error):
        removable(name, runs)


def test_a_run_in_use_and_a_question_without_a_person_are_refused(rlhfctl, runs):
    asked = rlhfctl("runs", "rm", "small")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    with RunDirectory(runs / "small").lock():
        state = overview(runs / "small").state
        removed = rlhfctl("runs", "rm", "other", "small", "--yes")
    assert state == "running"
    assert removed.returncode == 8
    assert (runs / "small").is_dir()
    assert (runs / "other").is_dir()
    assert not RunDirectory(runs / "small").is_locked()


def test_watch_shows_a_run_that_is_not_running_and_ends(rlhfctl, runs):
    done = rlhfctl("watch", "small")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "small: finished"
    assert lines[1].startswith("  SFT: finished  held-out loss")
