"""Scores from reward models, functions and servers, over real files, imports and connections."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from rlhfctl.errors import CheckpointError, DataError, EnvironmentFault, RecipeError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.recipe.load import load_recipe
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.ppo import stage as ppo
from rlhfctl.stages.shared.reward_sources import extra_reward_models, import_function, open_rewards
from rlhfctl.stages.shared.stage_context import open_roles, open_stage_context

MODULE = """
def length(prompts, completions):
    assert len(prompts) == len(completions)
    return [float(len(text)) for text in completions]

def one_too_few(prompts, completions):
    return [0.0] * (len(completions) - 1)

def words(prompts, completions):
    return ["good"] * len(completions)

def broken(prompts, completions):
    return [1 / 0 for _ in completions]

def not_a_number(prompts, completions):
    return [0.0, float("nan")]

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_scores.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


class ScoreServer(ThreadingHTTPServer):
    """Answers from `answers` first, then with scores, and keeps the bodies that it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, object]] = []


class Handler(BaseHTTPRequestHandler):
    server: ScoreServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        scores = {"scores": [len(text) / 10 for text in body["completions"]]}
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, scores)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ScoreServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server):
    return f"http://127.0.0.1:{server.server_port}/score"


def section(tmp_path, sources, **keys):
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({"ppo": {"reward_sources": sources, **keys}}))
    return load_recipe(path).recipe.ppo


NO_RM = {"critic_init": "sft"}


def scored(tiny_run, tmp_path, sources, **keys):
    """Return the rewards of a recipe's sources, and a batch of two real answers."""
    session = open_stage_context(tiny_run.recipe)
    chosen = section(tmp_path, sources, **keys)
    inputs = {"sft": tiny_run.stage("sft")} | (
        {"rm": tiny_run.stage("rm")} if chosen.uses_rm else {}
    )
    roles = open_roles(session, inputs, extra_reward_models(chosen))
    prompts = [[{"role": "user", "content": text}] for text in ("What is 2 plus 2?", "Hello?")]
    pairs = zip(
        prompts, [[{"role": "assistant", "content": t}] for t in ("4.", "Hi you!")], strict=True
    )
    ids = list(session.formatter.pairs(list(pairs)))
    batch = Sequences.from_lists([i[0] for i in ids], [i[1] for i in ids], roles.pad_token_id)
    return open_rewards(chosen, roles, session.formatter, prompts), batch, roles


def test_a_function_sees_prompts_and_texts_as_trl_would_hand_them(tiny_run, here):
    rewards, batch, _ = scored(tiny_run, here, [{"source": "my_scores:length"}], **NO_RM)
    assert rewards.scores_per_source(batch, [0, 1]).tolist() == [[2.0, 7.0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_too_few", "1 scores for 2 responses"),
        ("words", "did not return a list of numbers"),
        ("broken", "ZeroDivisionError"),
        ("not_a_number", "NaN or infinite"),
    ],
)
def test_a_function_that_gives_no_number_a_response_is_named(tiny_run, here, name, words):
    rewards, batch, _ = scored(tiny_run, here, [{"source": f"my_scores:{name}"}], **NO_RM)
    with pytest.raises(DataError, match=words) as caught:
        rewards.scores_per_source(batch, [0, 1])
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module:f", "my_scores:missing", "my_scores:number"])
def test_a_function_that_is_not_there_is_a_fault_of_the_recipe(here, name):
    with pytest.raises(RecipeError, match=name.partition(":")[2]):
        import_function(name)


def test_a_module_that_does_not_load_is_a_fault_of_the_recipe(here):
    (here / "half_written.py").write_text("def length(:")
    with pytest.raises(RecipeError, match="SyntaxError"):
        import_function("half_written:length")


def test_a_server_is_asked_with_prompts_and_completions(tiny_run, here, server):
    rewards, batch, _ = scored(tiny_run, here, [{"source": address(server)}], **NO_RM)
    assert rewards.scores_per_source(batch, [0, 1]).tolist() == [pytest.approx([0.2, 0.7])]
    (asked,) = server.asked
    assert asked["completions"] == ["4.", "Hi you!"]
    assert asked["prompts"][0] == [{"role": "user", "content": "What is 2 plus 2?"}]


def test_a_server_that_fails_once_is_asked_again(tiny_run, here, server):
    server.answers = [(503, {"error": "busy"})]
    rewards, batch, _ = scored(tiny_run, here, [{"source": address(server), "retries": 1}], **NO_RM)
    assert rewards.scores_per_source(batch, [0, 1]).shape == (1, 2)
    assert len(server.asked) == 2


@pytest.mark.parametrize("answer", [(500, {"error": "broken"}), (200, {"score": [1]}), (200, [1])])
def test_a_server_that_goes_on_failing_ends_the_run_with_its_address(
    tiny_run, here, server, answer
):
    server.answers = [answer]
    rewards, batch, _ = scored(tiny_run, here, [{"source": address(server), "retries": 0}], **NO_RM)
    with pytest.raises(EnvironmentFault, match="reward server failed 1 times") as caught:
        rewards.scores_per_source(batch, [0, 1])
    assert address(server) in str(caught.value)


def test_nobody_at_the_address_is_said_so(tiny_run, here):
    rewards, batch, _ = scored(
        tiny_run, here, [{"source": "http://127.0.0.1:9/score", "retries": 0}], **NO_RM
    )
    with pytest.raises(EnvironmentFault, match="ConnectError"):
        rewards.scores_per_source(batch, [0, 1])


def test_several_reward_models_each_keep_their_own_head_and_scale(tiny_run, here):
    other = here / "other"
    shutil.copytree(tiny_run.stage("rm"), other)
    scale = other / "score_normalization.json"
    kept = json.loads(scale.read_text())
    scale.write_text(json.dumps(kept | {"mean": kept["mean"] - 2 * kept["deviation"]}))
    rewards, batch, roles = scored(tiny_run, here, [{"source": "rm"}, {"source": "./other"}])
    first, second = rewards.scores_per_source(batch, [0, 1])
    torch.testing.assert_close(second, first + 2.0, atol=1e-5, rtol=0)
    assert torch.equal(first, roles.scores(batch))
    assert [source.name for source in rewards.sources] == ["rm", "other"]


def test_a_missing_folder_is_named(here):
    with pytest.raises(CheckpointError, match="does not exist"):
        extra_reward_models(section(here, [{"source": "rm"}, {"source": "./nowhere"}]))


def ppo_run(tiny_run, here, inputs, *overrides):
    recipe = load_recipe(write_recipe(here, tiny_run.recipe), list(overrides)).recipe
    output = here / "out"
    output.mkdir()
    return ppo.run(recipe, {name: tiny_run.stage(name) for name in inputs}, output, NullMonitor())


def write_recipe(folder, recipe):
    from rlhfctl.recipe.load import dump_recipe

    path = folder / "tiny.yaml"
    path.write_text(dump_recipe(recipe))
    return path


def test_ppo_runs_on_a_function_alone_without_any_reward_model(tiny_run, here):
    metrics = ppo_run(
        tiny_run,
        here,
        ["sft"],
        "ppo.reward_sources=[{source: 'my_scores:length', weight: 0.1}]",
        "ppo.critic_init=sft",
        "ppo.ptx_coefficient=1.0",
        "ppo.ptx_batch_size=8",
        "ppo.responses_per_prompt=2",
    ).metrics
    assert metrics["score"] > 0
    assert metrics["ptx_loss"] > 0
    assert metrics["kl"] != 0
    assert (here / "out" / "critic" / "adapter_model.safetensors").is_file()
    assert not any("reward model" in check for check in metrics["gate"])


def test_ppo_runs_without_a_critic_on_an_ensemble(tiny_run, here):
    shutil.copytree(tiny_run.stage("rm"), here / "other")
    metrics = ppo_run(
        tiny_run,
        here,
        ["sft", "rm"],
        "ppo.reward_sources=[{source: rm}, {source: ./other}]",
        "ppo.reward_rule=worst",
        "ppo.advantage_estimator=batch_mean",
    ).metrics
    assert metrics["score_disagreement"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["score_rm"] == pytest.approx(metrics["score_other"])
    assert not (here / "out" / "critic").exists()
