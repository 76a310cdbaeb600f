"""`report`: which runs it renders, as what, and where to."""

import json
import shutil

import pytest


def test_the_newest_run_is_rendered_into_its_folder(rlhfctl, finished, folder):
    place = folder / "runs" / "small" / "report.html"
    place.unlink(missing_ok=True)
    done = rlhfctl("report")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "runs/small/report.html"
    assert "<!DOCTYPE html>" in place.read_text()


@pytest.mark.parametrize("run", ["small", "runs/small"])
def test_other_forms_go_where_they_are_asked_to(rlhfctl, finished, folder, run):
    shown = rlhfctl("report", run, "--format", "json", "--output", "-")
    assert json.loads(shown.stdout)["run"] == "small"
    done = rlhfctl("report", run, "--format", "md", "--output", "deep/er.md", "--json")
    assert json.loads(done.stdout)["report"] == "deep/er.md"
    assert (folder / "deep" / "er.md").read_text().startswith("## small: ")


def test_several_runs_are_compared_and_a_sweep_stands_alone(rlhfctl, finished, folder):
    shutil.copytree(folder / "runs" / "small", folder / "runs" / "other")
    done = rlhfctl("report", "small", "other")
    assert done.stdout.strip() == "runs/comparison.html"
    assert "RLHF runs compared" in (folder / "runs" / "comparison.html").read_text()
    (folder / "runs" / "other" / "sweep.json").write_text(
        '{"recipe": "r", "keys": [], "points": []}'
    )
    assert "RLHF sweep" in rlhfctl("report", "other", "--output", "-").stdout
    refused = rlhfctl("report", "small", "other")
    assert refused.returncode == 2
    assert "a sweep cannot be combined with other runs" in refused.stderr


def test_what_is_not_there_is_named(rlhfctl, folder):
    for arguments, said in (
        ((), "no runs found"),
        (("nothing",), "run not found"),
        (("--format", "pdf"), "pdf"),
    ):
        done = rlhfctl("report", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_named(rlhfctl, finished, folder):
    (folder / "file").write_text("")
    assert "is a folder" in rlhfctl("report", "--output", "runs").stderr
    done = rlhfctl("report", "--output", "file/report.html")
    assert done.returncode not in {0, 1}
    assert "cannot write the report" in done.stderr
