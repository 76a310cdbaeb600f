"""Servers that fail while a rollout is sampled: one more start, else the run's end."""

import sys
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlhfctl.errors import EnvironmentFault, UsageError
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo.vllm_client import Server
from rlhfctl.stages.ppo.vllm_engine import VLLMEngine, require_one_process
from rlhfctl.stages.ppo.vllm_server import VLLMServer, server_command, server_environment
from tests.conftest import tiny_recipe
from tests.stages.ppo.test_vllm_client import GOOD, Fake

PROMPTS = [[1], [2], [3], [4]]
SEEDS = [(0, 0, n) for n in range(4)]


@pytest.fixture
def fakes():
    """Two servers that answer well."""
    fakes = [Fake(), Fake()]
    for fake in fakes:
        fake.choice()
    yield fakes
    for fake in fakes:
        fake.server.shutdown()
        fake.server.server_close()


class Told(NullMonitor):
    """A monitor that keeps its warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def engine_over(fakes, folder, monitor):
    recipe = tiny_recipe(
        "ppo.engine=vllm",
        f"ppo.vllm.server_base_url=[{', '.join(fake.address.url for fake in fakes)}]",
        f"ppo.vllm.adapter_folder={folder}",
        "ppo.vllm.server_timeout=0.2",
    )
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=10))
    )
    models = SimpleNamespace(
        language_model=lambda role: model, save_policy=lambda folder: folder.mkdir()
    )
    roles: Any = SimpleNamespace(
        models=models, temperature=1.0, max_new_tokens=3, stop_token_ids=(1,), vocabulary=10
    )
    return VLLMEngine(recipe, roles, folder, monitor)


def asked(fake, path):
    return [body for asked_path, body in fake.asked if asked_path == path]


def test_several_servers_share_a_rollout_and_each_gets_the_adapter(fakes, tmp_path):
    engine = engine_over(fakes, tmp_path, NullMonitor())
    done: list[int] = []
    with engine.running():
        responses = engine.sample(PROMPTS, SEEDS, done.append)
        engine.sample(PROMPTS, SEEDS, done.append)
        [present] = [path for folder in tmp_path.iterdir() for path in folder.iterdir()]
    assert responses.ids == [GOOD["token_ids"]] * 4
    assert done == [1, 2, 3, 4] * 2
    seeds = set()
    for fake, prompts in zip(fakes, ([[1], [2]], [[3], [4]]), strict=True):
        completions = asked(fake, "/v1/completions")
        assert sorted(body["prompt"] for body in completions[:2]) == prompts
        seeds |= {body["seed"] for body in completions}
        first, second = [body["lora_path"] for body in asked(fake, "/v1/load_lora_adapter")]
        # Another path for other weights, or cached states of the old ones would be reused.
        assert first != second == str(present)
        assert asked(fake, "/v1/unload_lora_adapter") == [{"lora_name": engine.name}]
    assert len(seeds) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_rollout_is_sampled_anew_once_and_a_second_failure_ends_the_run(fakes, tmp_path):
    monitor = Told()
    engine = engine_over(fakes, tmp_path, monitor)
    with engine.running():
        fakes[1].failures = 1
        assert len(engine.sample(PROMPTS, SEEDS, lambda _: None).ids) == 4
        assert "waiting for it, then sampling the rollout anew" in monitor.warnings[0]
        fakes[1].failures = 2
        with pytest.raises(EnvironmentFault, match="vLLM failed twice within a rollout") as caught:
            engine.sample(PROMPTS, SEEDS, lambda _: None)
    assert caught.value.exit_code == 4


def test_a_running_server_that_is_never_ready_ends_the_run(fakes, tmp_path):
    fakes[1].status = 503
    engine = engine_over(fakes, tmp_path, NullMonitor())
    with (
        pytest.raises(EnvironmentFault, match="no vLLM server was ready within"),
        engine.running(),
    ):
        pass


def test_a_server_that_sleeps_between_rollouts_wakes_before_it_gets_the_adapter(fakes, tmp_path):
    engine = engine_over(fakes[:1], tmp_path, NullMonitor())
    engine._sleeps = True
    with engine.running():
        engine.sample(PROMPTS, SEEDS, lambda _: None)
    paths = [path for path, _ in fakes[0].asked]
    assert paths[:2] == ["/wake_up", "/v1/load_lora_adapter"]
    assert set(paths[2:6]) == {"/v1/completions"}
    assert paths[6] == "/sleep?level=1"


def test_several_processes_are_refused():
    one: Any = SimpleNamespace(count=1)
    two: Any = SimpleNamespace(count=2)
    require_one_process(one)
    with pytest.raises(UsageError, match="works in one process, and there are 2"):
        require_one_process(two)


def server(tmp_path, code, limit=30.0):
    command = [sys.executable, "-c", code]
    address = Server("http://vllm", tmp_path / "socket")
    return VLLMServer(command, {}, address, tmp_path / "log", limit)


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path):
    broken = server(tmp_path, "print('no such model'); raise SystemExit(3)")
    with pytest.raises(EnvironmentFault, match="ended with code 3") as caught:
        broken.start()
    assert "no such model" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_server_that_is_never_ready_is_ended(tmp_path):
    slow = server(tmp_path, "import time; time.sleep(60)", limit=0.1)
    with pytest.raises(EnvironmentFault, match="was not ready within"):
        slow.start()
    assert slow._process is None


def test_a_server_gets_the_recipes_base_lengths_and_rank(tmp_path):
    recipe = tiny_recipe("ppo.engine=vllm", "lora.r=9", "ppo.vllm.server_args=[--block-size, '32']")
    command = server_command(recipe, tmp_path / "python", ["--uds", "socket"])
    pairs = dict(pairwise(command))
    assert command[0] == str(tmp_path / "python")
    assert pairs["--uds"] == "socket"
    assert pairs["--dtype"] == "float32"
    assert pairs["--max-model-len"] == "80"
    assert pairs["--max-lora-rank"] == "16"
    assert pairs["--generation-config"] == "vllm"
    assert pairs["--logprobs-mode"] == "processed_logprobs"
    assert command[-2:] == ["--block-size", "32"]


def test_a_server_on_a_gpu_sleeps_in_mode_colocate_only(tmp_path, monkeypatch):
    monkeypatch.setattr("rlhfctl.stages.ppo.vllm_server.device", lambda: torch.device("cuda"))
    flag = "--enable-sleep-mode"
    for mode, sleeps in (("server", False), ("colocate", True)):
        recipe = tiny_recipe("ppo.engine=vllm", f"ppo.vllm.mode={mode}")
        assert (flag in server_command(recipe, tmp_path, [])) == sleeps
    assert server_environment(sleeps=True)["VLLM_SERVER_DEV_MODE"] == "1"
    # Its endpoints can do more than sleep, so other servers go without them.
    assert "VLLM_SERVER_DEV_MODE" not in server_environment()
