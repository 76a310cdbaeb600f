"""Checks of a recipe's files before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhfctl.data import sources
from rlhfctl.data.sources import preview
from rlhfctl.errors import EnvironmentFault, RecipeError, UnsafeError
from rlhfctl.preflight import Finding, check_files, check_stage_data
from rlhfctl.recipe.load import load_recipe, shipped_recipes
from rlhfctl.recipe.schema import Recipe
from rlhfctl.stage_table import REWARD_MODEL, SFT
from tests.foreign import changed, chatml, encoder, inst

ROWS = [{"prompt": f"Question {n}?", "completion": " Yes."} for n in range(5)]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(rows: Iterable[object], name: str = "x.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def found(level: str, **sections: object) -> list[Finding]:
    findings = check_files(Recipe.model_validate(sections))
    return [finding for finding in findings if finding.level == level]


def data(**sections):
    return {"data": {"max_bad_fraction": 1.0, **sections}}


def test_a_reward_function_without_its_module_is_found_before_anything_runs():
    sections = {
        "ppo": {"reward_sources": [{"source": "scores_of_nobody:brevity"}], "critic_init": "sft"}
    }
    (missing,) = found("error", **sections)
    assert (missing.where, "scores_of_nobody" in missing.what) == ("ppo.reward_sources.0", True)
    Path("scores_of_nobody.py").write_text("raise SystemExit('checking must not run it')")
    assert found("error", **sections) == []


@pytest.fixture(scope="module")
def foreign_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign")
    return {make.__name__: str(make(root / make.__name__)) for make in (chatml, inst, encoder)}


def rewarded(source, **keys):
    return {"ppo": {"reward_sources": [{"source": source, **keys}]}}


def test_a_reward_model_from_elsewhere_is_looked_at_without_its_weights(foreign_models):
    sections = rewarded(foreign_models["chatml"], max_length=250)
    sections["evaluation"] = {"judge_rm": foreign_models["inst"]}
    sections["generation"] = {"max_prompt_length": 100, "max_new_tokens": 40}
    ok = {finding.where: finding.what for finding in found("ok", **sections)}
    assert "one output, chat template, weights of" in ok["ppo.reward_sources.0"]
    assert "one output, chat template" in ok["evaluation.judge_rm"]
    assert found("error", **sections) == []
    (long,) = found("warning", **sections)
    assert long.where == "evaluation.judge_rm"
    assert "may have 140 tokens" in long.what
    assert "takes 128" in long.what


def test_what_a_reward_model_from_elsewhere_lacks_is_an_error(foreign_models, tmp_path):
    (conversations,) = found("error", **rewarded(foreign_models["encoder"]))
    assert conversations.where == "ppo.reward_sources.0"
    assert "the prompts are conversations" in conversations.what
    two = shutil.copytree(foreign_models["inst"], tmp_path / "two")
    changed(two, id2label={"0": "BAD", "1": "GOOD"})
    (heads,) = found("error", **rewarded(str(two)))
    assert "two has 2 outputs (BAD, GOOD)" in heads.what
    (missing,) = found("warning", **rewarded("./nowhere"))
    assert "there is no folder" in missing.what
    (hub,) = [
        finding
        for finding in found("not checked", **rewarded("hub:nobody/nothing"))
        if finding.where == "ppo.reward_sources.0"
    ]
    assert hub.what == "hub:nobody/nothing: on the Hub"


def test_a_judging_function_and_a_judges_key_are_looked_for_too(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    endpoint = {"url": "http://host/v1", "model": "judge", "api_key_env": "JUDGE_KEY"}
    judges = {"judge_function": "no_such_module_either:f", "judge_endpoint": endpoint}
    errors = found("error", evaluation=judges)
    assert [finding.where for finding in errors] == [
        "evaluation.judge_function",
        "evaluation.judge_endpoint.api_key_env",
    ]
    assert "JUDGE_KEY is not set" in errors[1].what
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    shown = found("ok", evaluation=judges)
    assert "JUDGE_KEY is set" in [finding.what for finding in shown]
    assert "sk-secret" not in str(shown)


def test_a_file_of_subsets_is_looked_at_before_anything_runs():
    def evaluation(name):
        return {"evaluation": {"reward_bench": name}}

    row = {"subset": "a", "prompt": "b", "chosen": "c", "rejected": "d"}
    (missing,) = found("error", **evaluation("none.jsonl"))
    assert missing.where == "evaluation.reward_bench"
    assert missing.what == "none.jsonl: there is no such file"
    (unformed,) = found("error", **evaluation(write(ROWS)))
    assert "the columns subset, chosen, rejected are missing" in unformed.what
    assert found("warning", **evaluation(write([row, row | {"chosen": ""}])))
    good = evaluation(write([row]))
    assert (found("error", **good), found("warning", **good)) == ([], [])


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda path: path.name)
def test_shipped_recipes_have_no_errors_and_no_warnings(path):
    """The exceptions: files that its user writes first, and functions that its user must allow."""
    findings = check_files(load_recipe(path).recipe)
    others = [finding for finding in findings if not re.search("build/|--allow-code", finding.what)]
    assert {finding.level for finding in others} <= {"ok", "not checked"}
    if path.stem == "smollm2-135m":
        assert [finding.level for finding in findings if finding not in others] == [
            "warning",
            *["error"] * 3,
        ]


class TestData:
    def test_a_missing_file_is_an_error_at_its_key(self):
        (finding,) = found("error", **data(prompts={"source": "none.jsonl"}))
        assert finding.where == "data.prompts"
        assert finding.what == "none.jsonl: there is no such file"

    def test_all_errors_are_found_at_once(self):
        Path("bad.jsonl").write_text("{")
        sources = {
            "demonstrations": {"source": "bad.jsonl"},
            "comparisons": {"source": write(ROWS)},
            "prompts": {"source": "none.csv"},
        }
        assert [finding.where for finding in found("error", **data(**sources))] == [
            "data.demonstrations",
            "data.comparisons",
            "data.prompts",
        ]

    def test_absent_columns_come_with_a_hint(self):
        (finding,) = found("error", **data(prompts={"source": write([{"promt": "a"}])}))
        assert finding.hint == "for example data.prompts.columns: {prompt: promt}"

    def test_bad_rows_are_a_warning_when_dropped_and_an_error_when_refused(self):
        source = {"source": write([*ROWS, {"prompt": "a", "completion": ""}])}
        findings = found("warning", **data(demonstrations=source))
        assert "1 of 6 rows cannot be used: 1 empty response" in findings[0].what
        for keys in ({"bad_rows": "refuse"}, {"max_bad_fraction": 0.1}):
            (finding,) = found("error", **data(demonstrations=source, **keys))
            assert finding.where == "data.demonstrations"

    def test_no_usable_row_is_an_error(self):
        (finding,) = found("error", **data(prompts={"source": write([{"prompt": " "}])}))
        assert "no usable row" in finding.what

    def test_a_stage_is_checked_for_what_it_reads_only(self):
        Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        recipe = Recipe.model_validate(
            data(demonstrations={"source": "x.jsonl"}, comparisons={"source": "none.jsonl"})
        )
        assert [finding.level for finding in check_stage_data(recipe, SFT)] == ["ok"]
        (missing, _) = check_stage_data(recipe, REWARD_MODEL)
        assert (missing.level, missing.where) == ("error", "data.comparisons")

    def test_margins_are_needed_only_where_they_are_used(self):
        pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
        rows = [pair | {"margin": margin} for margin in (1.0, None)]
        values = data(comparisons={"source": write(rows)})
        for use_margin, level in ((False, "ok"), (True, "warning")):
            recipe = Recipe.model_validate(values | {"reward_model": {"use_margin": use_margin}})
            (comparisons, *_) = check_stage_data(recipe, REWARD_MODEL)
            assert comparisons.level == level
        assert "1 margin is missing or not a number" in comparisons.what

    def test_only_the_first_thousand_rows_are_looked_at(self):
        many = [{"prompt": f"Question {n}?"} for n in range(1500)]
        pq.write_table(pa.Table.from_pylist(many), "x.parquet")
        Path("x.csv").write_text("prompt\n" + "a\n" * 1500)
        Path(write(many)).write_text(Path("x.jsonl").read_text() + "{broken")
        for name in ("x.jsonl", "x.csv", "x.parquet"):
            looked_at = [f.what for f in found("ok", **data(prompts={"source": name}))]
            assert any(what.startswith(f"{name}: text, 1,000 rows checked") for what in looked_at)

    def test_text_beside_conversations_is_a_warning(self):
        sections = data(demonstrations={"source": write(ROWS)})
        (finding,) = found("warning", **sections)
        assert finding.what.startswith(
            "demonstrations are text, comparisons are conversations, prompts are conversations"
        )

    def test_a_hub_data_set_is_left_alone(self):
        findings = found("not checked", **data(prompts={"source": "nobody/nothing"}))
        assert "nobody/nothing: on the Hub" in [f.what for f in findings]

    def test_a_script_is_unsafe(self):
        with pytest.raises(UnsafeError):
            found("ok", **data(prompts={"source": "me/data.py"}))

    def test_a_wrong_mapping_of_a_hub_data_set_is_found_too(self):
        source = {"source": "nobody/nothing", "columns": {"query": "prompt"}}
        with pytest.raises(RecipeError, match="query is not a column"):
            found("ok", **data(prompts=source))


class TestModel:
    def test_a_folder_without_a_model_is_an_environment_fault(self):
        with pytest.raises(EnvironmentFault):
            found("ok", model={"name_or_path": "./none"})

    def test_a_missing_chat_template_is_a_recipe_error(self):
        with pytest.raises(RecipeError, match="cannot be read"):
            found("ok", model={"chat_template": "none.jinja"})

    def test_a_file_that_is_no_template_is_a_recipe_error(self):
        Path("x.jinja").write_text("Hello.")
        with pytest.raises(RecipeError, match="no chat template"):
            found("ok", model={"chat_template": "x.jinja"})

    def test_code_from_a_repository_is_pointed_out(self):
        revision = "0" * 39 + "c"
        model = {"name_or_path": "me/model", "trust_remote_code": True, "revision": revision}
        (finding,) = found("warning", model=model)
        assert f"revision {revision} runs with --allow-remote-code only" in finding.what

    def test_a_checkpoint_that_is_not_there_yet_is_a_warning(self):
        (finding,) = found("warning", ppo={"sft": "runs/other/sft"})
        assert (finding.where, finding.level) == ("ppo.sft", "warning")


def test_checking_a_recipe_without_a_tokenizer_of_its_own_imports_no_torch():
    code = (
        "import sys; from rlhfctl.preflight import check_files, check_stage_data;"
        "from rlhfctl.recipe.schema import Recipe; from rlhfctl.stage_table import STAGES;"
        "sections = {'data': {'prompts': {'source': 'someone/prompts'}},"
        " 'model': {'dtype': 'float32'}};"
        "recipe = Recipe.model_validate(sections);"
        "check_files(recipe); [check_stage_data(recipe, stage) for stage in STAGES];"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tasks_of_the_harness_need_the_extra_and_their_files(monkeypatch):
    tax = {"evaluation": {"tax": {"tasks": ["mine.yaml"]}}}
    monkeypatch.setattr("rlhfctl.run.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"rlhfctl\[tax\]"):
        found("error", **tax)
    monkeypatch.setattr("rlhfctl.run.extras.importlib.util.find_spec", lambda name: object())
    (error,) = found("error", **tax)
    assert "mine.yaml" in error.what
    Path("mine.yaml").write_text("task: mine\n")
    assert found("error", **tax) == []


def test_rows_are_encoded_as_the_stages_will():
    turns = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "<|end|> here"},
    ]
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    source = write([{"messages": turns}] * 2 + [{"messages": [turns[0], call]}])
    warnings = [one.what for one in found("warning", **data(demonstrations={"source": source}))]
    assert len(warnings) == 2
    assert "1 with tool_calls that the chat template does not render" in warnings[0]
    assert "2 of 3 rows spell a control token, such as '<|end|>'" in warnings[1]
    assert "data.demonstrations.special_tokens: parse" in warnings[1]


def test_variables_that_the_chat_template_does_not_use_are_named():
    (warning,) = found("warning", model={"chat_template_kwargs": {"enable_thinking": False}})
    assert warning.what == "the chat template does not use enable_thinking"


def test_stop_tokens_are_looked_up_in_the_shipped_tokenizer_too():
    assert found("error", generation={"stop_tokens": ["<|end|>"]}) == []
    with pytest.raises(RecipeError, match="'no such token' are not tokens"):
        found("error", generation={"stop_tokens": ["no such token"]})


def test_each_file_is_read_once(foreign_models, monkeypatch):
    reads: list[str] = []

    def counted(section, kind, *rows, **options):
        reads.append(kind)
        return preview(section, kind, *rows, **options)

    monkeypatch.setattr(sources, "preview", counted)
    source = write([{"prompt": [{"role": "user", "content": "Where?"}]}])
    sections = rewarded(foreign_models["encoder"]) | data(prompts={"source": source})
    (conversations,) = found("error", **sections)
    assert "the prompts are conversations" in conversations.what
    assert reads == ["demonstrations", "comparisons", "prompts"]


def test_labels_of_several_annotators_are_not_aggregated_over_rankings():
    ranked = {"prompt": "2 + 2?", "responses": ["4", "5", "six"], "ranks": [1, 2, 3]}
    section = data(comparisons={"source": write([ranked])})
    assert found("error", **section, reward_model={"labels": "as_given"}) == []
    [finding] = found("error", **section, reward_model={"labels": "majority"})
    assert "the weighted pairs of rankings" in finding.what
    assert finding.where == "data.comparisons"
