"""Scores from functions and servers, over real imports and connections."""

import json
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest

from rlhfctl.data.sources import load_prompts
from rlhfctl.errors import DataError, EnvironmentFault, RecipeError, UnsafeError
from rlhfctl.maths.sequences import Sequences
from rlhfctl.recipe.permissions import ALLOW_CODE
from rlhfctl.recipe.ppo import PPOSection
from rlhfctl.recipe.schema import Recipe
from rlhfctl.run.stop import Stopped
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_functions import UserFunction, import_function
from rlhfctl.stages.shared.reward_sources import RewardSources

MODULE = """
import asyncio, functools, sys, time

def length(prompts, completions):
    assert len(prompts) == len(completions)
    return [float(len(text)) for text in completions]

def correct(completions, solution, **_):
    return [float(text == right) for text, right in zip(completions, solution)]

def spoken(completions, **_):
    assert {completion[0]["role"] for completion in completions} == {"assistant"}
    return [float(len(completion[0]["content"])) for completion in completions]

def tokens(completion_ids):
    return [sum(ids) for ids in completion_ids]

def everything(**arguments):
    assert {len(values) for values in arguments.values()} == {2}, arguments
    return [len(arguments)] * 2

def sometimes(completions):
    return [1.0 if text == "4." else None for text in completions]

def never(completions):
    return [None for _ in completions]

def only_optional(completions, *, level=None, log_metric=None):
    assert log_metric is None
    return [float(x) for x in level]

class Judge:
    async def __call__(self, completions, level):
        await asyncio.sleep(0)
        return [float(x) for x in level]

judge = Judge()

def scaled(factor, completions):
    return [factor * len(text) for text in completions]

doubled = functools.partial(scaled, 2)

async def slowly(prompts, completions):
    await asyncio.sleep(60)

def very_slowly(prompts, completions):
    time.sleep(1.5)

def one_too_few(prompts, completions):
    return [0.0] * (len(completions) - 1)

def words(prompts, completions):
    return ["good"] * len(completions)

def broken(prompts, completions):
    return [1 / 0 for _ in completions]

async def broken_later(prompts, completions):
    return [1 / 0 for _ in completions]

def not_a_number(prompts, completions):
    return [0.0, float("nan")]

def leaving(prompts, completions):
    sys.exit(0)

async def leaving_later(prompts, completions):
    sys.exit(0)

def leaving_between(prompts, completions):
    yield 1.0
    sys.exit(0)

class Surrender(BaseException):
    pass

def surrendering(prompts, completions):
    raise Surrender("enough")

number = 3
"""
PROMPTS = [[{"role": "user", "content": text}] for text in ("What is 2 plus 2?", "Hello?")]
COLUMNS = {"solution": ["4.", "Hello!"], "level": [3, 1]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_functions.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOW_CODE, "1")
    return tmp_path


class ScoreServer(ThreadingHTTPServer):
    """Answers from `answers` first, then with scores, and keeps the bodies that it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, object]] = []
        self.slow = 0.0


class Handler(BaseHTTPRequestHandler):
    server: ScoreServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, None)
        time.sleep(self.server.slow)
        if answer is None:
            answer = {"scores": [len(text) / 10 for text in body["completions"]]}
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())
        except BrokenPipeError:
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ScoreServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server):
    return f"http://127.0.0.1:{server.server_port}/score"


class Characters:
    """A formatter whose ids are characters."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def scores(*sources, columns=COLUMNS, **keys):
    """Return the scores, per source, of two responses in the order of rows 1, 0."""
    section = PPOSection.model_validate({"reward_sources": list(sources), **keys})
    no_roles, formatter = cast("Any", None), cast("Any", Characters())
    rewards = RewardSources.open(section).over(no_roles, formatter, PromptRows(PROMPTS, columns))
    batch = Sequences.from_lists([[1]] * 2, [list(map(ord, text)) for text in ("Hi you!", "4.")], 0)
    return rewards.scores_per_source(batch, [1, 0]).tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("length", [7.0, 2.0]),
        ("correct", [0.0, 1.0]),
        ("tokens", [float(sum(map(ord, "Hi you!"))), float(ord("4") + ord("."))]),
        ("everything", [5.0, 5.0]),
        ("only_optional", [1.0, 3.0]),
        ("judge", [1.0, 3.0]),
        ("doubled", [14.0, 4.0]),
    ],
)
def test_a_function_gets_what_it_accepts_row_by_row(here, name, expected):
    assert scores({"source": f"my_functions:{name}"}) == [expected]


def test_a_function_written_for_trl_reads_completions_as_messages(here):
    """TRL's own, whose import costs nothing here: it is loaded with the trainers."""
    source = {"source": "trl.rewards:think_format_reward", "completions": "messages"}
    assert scores(source) == [[0.0, 0.0]]
    assert scores({"source": "my_functions:spoken", "completions": "messages"}) == [[7.0, 2.0]]
    with pytest.raises(DataError) as caught:
        scores({"source": "my_functions:spoken"})
    assert "set completions: messages for this source" in caught.value.hint


def test_none_means_that_a_source_does_not_apply_to_a_response(here):
    """As in TRL, whose sum leaves it out."""
    length, sometimes = ({"source": f"my_functions:{name}"} for name in ("length", "sometimes"))
    assert scores(length, sometimes) == [[7.0, 2.0], [0.0, 1.0]]
    for alone in (sometimes, {"source": "my_functions:never"}):
        with pytest.raises(DataError, match="every reward source returned None for a response"):
            scores(alone)
    with pytest.raises(DataError, match="reward_rule: worst cannot combine"):
        scores(length, sometimes, reward_rule="worst")


def test_a_source_can_be_given_fewer_columns(here):
    source = {"source": "my_functions:everything", "columns": ["level"]}
    assert scores(source) == [[4.0, 4.0]]
    with pytest.raises(RecipeError, match=r"data\.prompts has no column answer"):
        scores(source | {"columns": ["answer"]})


def test_the_columns_come_from_the_prompts_of_the_recipe(here):
    """From the file, over de-duplication and rows that are dropped, to the call."""
    rows = [
        {"prompt": f"What is {n} plus {n}?", "solution": str(2 * n), "unused": "x"}
        for n in (0, 0, 1, 2, 3, 4, 5, 6, 7)
    ]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"source": "my_functions:correct", "columns": ["solution"]}]
    recipe = Recipe.model_validate(
        {
            "data": {"prompts": {"source": "rows.jsonl", "held_out": 0.3}},
            "ppo": {"reward_sources": sources},
        }
    )
    split = load_prompts(recipe)
    opened = RewardSources.open(recipe.ppo)
    for part in (split.train, split.held_out):
        found = opened.rows(recipe, part)
        assert set(found.columns) == {"solution"}
        for prompt, solution in zip(found.prompts, found.columns["solution"], strict=True):
            assert int(solution) == 2 * int(prompt.split()[2])


def test_a_column_that_a_function_needs_and_no_prompt_has_is_named_before_any_model_loads(here):
    (here / "rows.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c"}\n')
    recipe = Recipe.model_validate(
        {
            "data": {"prompts": {"source": "rows.jsonl", "held_out": 0.5}},
            "ppo": {"reward_sources": [{"source": "my_functions:correct"}]},
        }
    )
    with pytest.raises(RecipeError, match=r"needs solution.*its columns are prompt, answer"):
        RewardSources.open(recipe.ppo).rows(recipe, load_prompts(recipe).train)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("one_too_few", "1 scores for 2 responses"),
        ("words", "did not return a list of numbers"),
        ("broken", "ZeroDivisionError"),
        ("broken_later", "ZeroDivisionError"),
        ("not_a_number", "NaN or infinite"),
    ],
)
def test_a_function_that_gives_no_number_a_response_is_named(here, name, words):
    with pytest.raises(DataError, match=words) as caught:
        scores({"source": f"my_functions:{name}"})
    assert name in str(caught.value)


@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("leaving", "sys.exit(0)"),
        ("leaving_later", "sys.exit(0)"),
        ("leaving_between", "sys.exit(0)"),
        ("surrendering", "raise Surrender('enough')"),
    ],
)
def test_a_function_cannot_end_the_process_as_if_all_were_done(here, name, words, limit):
    with pytest.raises(DataError) as caught:
        scores({"source": f"my_functions:{name}", "timeout_seconds": limit})
    assert caught.value.exit_code == 3
    assert f"it tried to end the process by {words}" in caught.value.what
    assert name in caught.value.where


def test_a_function_is_imported_by_permission_only(here, monkeypatch):
    (here / "marked.py").write_text("open('imported', 'w')")
    monkeypatch.delenv(ALLOW_CODE)
    with pytest.raises(UnsafeError, match="--allow-code") as caught:
        import_function("marked:f", "ppo.reward_sources")
    assert "marked:f" in caught.value.what
    assert caught.value.where == "ppo.reward_sources"
    assert not (here / "imported").exists()
    assert import_function("rlhfctl.world.gold:gold_reward").__name__ == "gold_reward"
    with pytest.raises(UnsafeError):
        import_function("rlhfctl_plugins:f")


def test_a_module_cannot_end_the_process_at_import(here):
    (here / "script.py").write_text("import sys\nsys.exit(0)")
    with pytest.raises(DataError, match=r"end the process by sys\.exit\(0\)"):
        import_function("script:length")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(15)])
def test_a_stop_from_outside_during_a_call_stops(stop):
    def interrupted(**_: object) -> list[float]:
        raise stop

    with pytest.raises(type(stop)):
        UserFunction.of("interrupted", interrupted).start({})()


@pytest.mark.parametrize("name", ["slowly", "very_slowly"])
def test_a_function_beyond_its_time_limit_ends_the_stage_in_one_sentence(here, name):
    with pytest.raises(DataError) as caught:
        scores({"source": f"my_functions:{name}", "timeout_seconds": 0.2})
    assert caught.value.exit_code == 3
    assert caught.value.what == "the reward function did not return within 0.2 seconds"
    assert name in caught.value.where


@pytest.mark.parametrize(
    "name", ["no_such_module:f", "my_functions:missing", "my_functions:number"]
)
def test_a_function_that_is_not_there_is_a_fault_of_the_recipe(here, name):
    with pytest.raises(RecipeError, match=name.partition(":")[2]):
        import_function(name)


def test_a_module_that_does_not_load_is_a_fault_of_the_recipe(here):
    (here / "half_written.py").write_text("def length(:")
    with pytest.raises(RecipeError, match="SyntaxError"):
        import_function("half_written:length")


def test_a_function_without_a_readable_signature_gets_everything():
    assert UserFunction.of("min", min).accepts is None


class TestServer:
    def test_it_is_asked_with_prompts_completions_ids_and_columns(self, server):
        assert scores({"source": address(server)}) == [pytest.approx([0.7, 0.2])]
        (asked,) = server.asked
        assert asked == {
            "prompts": [PROMPTS[1], PROMPTS[0]],
            "completions": ["Hi you!", "4."],
            "completion_ids": [list(map(ord, "Hi you!")), [52, 46]],
            "solution": ["Hello!", "4."],
            "level": [1, 3],
        }

    def test_a_column_that_json_does_not_have_is_named(self, server):
        dated = {"level": [1, 2], "when": [datetime.now(UTC)] * 2}
        with pytest.raises(DataError, match="column when cannot be sent"):
            scores({"source": address(server)}, columns=dated)
        assert scores({"source": address(server), "columns": ["level"]}, columns=dated)
        assert "when" not in server.asked[-1]

    def test_one_that_fails_once_is_asked_again(self, server):
        server.answers = [(503, {"error": "busy"})]
        assert len(scores({"source": address(server), "retries": 1})[0]) == 2
        assert len(server.asked) == 2

    @pytest.mark.parametrize(
        "answer", [(500, {"error": "broken"}), (200, {"score": [1]}), (200, [1])]
    )
    def test_one_that_goes_on_failing_ends_the_run_with_its_address(self, server, answer):
        server.answers = [answer]
        with pytest.raises(EnvironmentFault, match="reward server failed 1 times") as caught:
            scores({"source": address(server), "retries": 0})
        assert address(server) in str(caught.value)

    def test_nobody_at_the_address_is_said_so(self):
        with pytest.raises(EnvironmentFault, match="ConnectError"):
            scores({"source": "http://127.0.0.1:9/score", "retries": 0})

    def test_its_time_limit_holds_over_all_retries(self, server):
        server.answers = [(503, {})] * 9
        with pytest.raises(
            DataError, match=r"the reward server did not return within 0\.3 seconds"
        ):
            scores({"source": address(server), "retries": 9, "timeout_seconds": 0.3})
        assert len(server.asked) == 1

    def test_servers_are_asked_at_the_same_time(self, server):
        server.slow = 0.5
        started = time.monotonic()
        both = [{"source": address(server) + suffix} for suffix in ("", "/other")]
        assert len(scores(*both)) == 2
        assert time.monotonic() - started < 0.95
