"""Code that a recipe names runs by the user's permission only."""

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
JUDGE = "evaluation.judge_function=stranger:prefers"
REMOTE = ("model.trust_remote_code=true", f"model.revision={COMMIT}")


@pytest.fixture
def stranger(folder):
    (folder / "stranger.py").write_text("open('imported', 'w')\ndef prefers(completions): ...\n")
    return folder / "imported"


def settings(*keys):
    return [part for key in keys for part in ("--set", key)]


@pytest.mark.parametrize("command", ["run", "eval", "sweep"])
def test_a_function_that_a_recipe_names_is_refused(tiny, folder, stranger, command):
    grid = ["ppo.beta=0,0.1"] if command == "sweep" else []
    done = tiny(command, "small.yaml", *settings(JUDGE, *grid))
    assert done.returncode == 11
    assert "evaluation.judge_function: the recipe names a judge function" in done.stderr
    assert "stranger:prefers" in done.stderr
    assert "--allow-code" in done.stderr
    assert not stranger.exists()
    assert not (folder / "runs").exists()


def test_stages_that_do_not_use_the_function_run(tiny, stranger):
    assert tiny("sft", "small.yaml", *settings(JUDGE)).returncode == 0
    assert not stranger.exists()


def test_an_option_or_a_variable_allows_it(tiny, stranger):
    done = tiny("run", "small.yaml", *settings(JUDGE), "--allow-code")
    assert done.returncode == 0, done.stderr
    done = tiny("run", "small.yaml", *settings(JUDGE), variables={"RLHFCTL_ALLOW_CODE": "1"})
    assert done.returncode == 0, done.stderr


def test_validate_names_the_function_without_importing_it(rlhfctl, stranger):
    done = rlhfctl("validate", "small.yaml", *settings(JUDGE))
    assert done.returncode == 0
    assert "judge function stranger:prefers runs with --allow-code only" in done.stderr
    assert not stranger.exists()


def test_code_of_a_repository_needs_the_key_a_commit_and_the_option(tiny, folder):
    done = tiny("sft", "small.yaml", *settings(*REMOTE))
    assert done.returncode == 11
    assert "model.trust_remote_code: code of org/model would run on this machine" in done.stderr
    assert "--allow-remote-code" in done.stderr
    assert not (folder / "runs").exists()
    done = tiny("sft", "small.yaml", *settings(*REMOTE), "--allow-remote-code")
    assert done.returncode == 0, done.stderr
    done = tiny(
        "sft", "small.yaml", *settings(REMOTE[0], "model.revision=main"), "--allow-remote-code"
    )
    assert done.returncode == 2
    assert "a commit of 40 hexadecimal digits" in done.stderr


def test_kernels_of_a_repository_need_the_option_too(tiny):
    done = tiny("sft", "small.yaml", *settings("model.attn_implementation=lab/fast-attention"))
    assert done.returncode == 11
    assert "model.attn_implementation: code of lab/fast-attention would run" in done.stderr
