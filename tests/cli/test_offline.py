"""`--offline`: refused where a recipe needs another machine, and no connection otherwise."""

import pytest

SERVER = "evaluation.judge_endpoint={url: 'http://judge.example/v1', model: m}"
LOCAL = "evaluation.judge_endpoint={url: 'http://localhost:1/v1', model: m}"
ENGINE = "ppo={engine: vllm, vllm: {server_base_url: 'http://10.0.0.8:8000'}}"
REWARD = "ppo.reward_sources=[{source: 'https://10.0.0.7/score'}]"


@pytest.mark.parametrize(
    ("command", "setting", "place"),
    [
        ("eval", SERVER, "evaluation.judge_endpoint.url: http://judge.example/v1"),
        ("run", SERVER, "evaluation.judge_endpoint.url: http://judge.example/v1"),
        ("run", REWARD, "ppo.reward_sources[0].source: https://10.0.0.7/score"),
        ("run", ENGINE, "ppo.vllm.server_base_url[0]: http://10.0.0.8:8000"),
    ],
)
def test_a_server_on_another_machine_is_refused_by_name(tiny, folder, command, setting, place):
    done = tiny(command, "small.yaml", "--offline", "--set", setting)
    assert done.returncode == 2
    assert place in done.stderr
    assert "--offline allows no connection" in done.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(("command", "setting"), [("sft", SERVER), ("eval", LOCAL)])
def test_stages_that_need_no_other_machine_run(tiny, command, setting):
    if command == "eval":
        assert tiny("run", "small.yaml").returncode == 0
    done = tiny(command, "small.yaml", "--offline", "--set", setting)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_the_libraries_are_told(tiny, folder, asked):
    option = ["--offline"] if asked == "option" else []
    variables = {"RLHFCTL_OFFLINE": "1"} if asked == "variable" else {}
    done = tiny("sft", "small.yaml", *option, act="sft:environment", variables=variables)
    assert done.returncode == 0, done.stderr
    environment = (folder / "runs/small/sft/environment").read_text().splitlines()
    for line in ("HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1", "WANDB_MODE=offline"):
        assert line in environment
