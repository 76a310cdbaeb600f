"""The commands `sample`, `chat`, `export` and `push` on a run whose models are random."""

import io
import json
import re
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from rlhfctl.cli.app import app
from rlhfctl.cli.chat import chat
from rlhfctl.cli.sampling import SamplingRequest, sample
from rlhfctl.console import Terminal
from rlhfctl.errors import DataError, UsageError
from rlhfctl.run.text import visible

OPTIONS = {
    "sample": {
        *("--stage", "--prompt", "--file", "--form", "--system", "--greedy", "--temperature"),
        *("--max-new-tokens", "--seed", "--best"),
    },
    "chat": {
        *("--stage", "--system", "--greedy", "--temperature", "--max-new-tokens", "--seed"),
        "--best",
    },
    "export": {
        *("--stage", "--output", "--merge", "--dtype", "--gguf", "--ollama", "--converter"),
        *("--best", "--license", "--base-model"),
    },
    "push": {
        *("--stage", "--repo", "--dry-run", "--public", "--merge", "--dtype", "--best"),
        *("--license", "--base-model"),
    },
}
COMMON = {"--runs-dir", "--allow-remote-code", "--json", "--quiet", "--debug", "--help"}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_are_these_and_no_others(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    offered = set(re.findall(r"(?:│|^) *(--[a-z-]+)", shown.stdout, re.MULTILINE))
    assert offered == OPTIONS[command] | COMMON


@pytest.fixture
def request_(finished_run):
    return SamplingRequest("small", finished_run.parent, ("sft", "ppo"), greedy=True)


def test_stages_stand_below_one_another_in_a_pipe_and_in_json(request_, capsys):
    sample(request_, ["red"], None, "auto", Terminal(quiet=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "prompt: red"
    assert [line[:5] for line in lines[1:]] == ["[SFT]", "[PPO]"]
    sample(request_, ["red"], None, "auto", Terminal(quiet=True, as_json=True))
    (row,) = json.loads(capsys.readouterr().out)["samples"]
    texts = [row["responses"][stage]["text"] for stage in ("sft", "ppo")]
    assert [line[6:].removesuffix(" […]") for line in lines[1:]] == list(map(visible, texts))


def test_prompts_come_from_a_file_or_stdin(request_, tmp_path, capsys, monkeypatch):
    (tmp_path / "prompts.txt").write_text("red\n\nblue\n")
    sample(request_, [], str(tmp_path / "prompts.txt"), "text", Terminal(quiet=True))
    from_file = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\nblue\n"))
    sample(request_, [], None, "text", Terminal(quiet=True))
    assert capsys.readouterr().out == from_file
    assert from_file.count("prompt: ") == 2
    with pytest.raises(DataError, match="cannot be read"):
        sample(request_, [], str(tmp_path / "none.txt"), "text", Terminal(quiet=True))
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(UsageError, match="there is no prompt"):
        sample(request_, [], None, "text", Terminal(quiet=True))


def test_each_line_of_a_pipe_is_a_turn_with_one_line_of_answer(request_, capsys, monkeypatch):
    typed = "red\nblue\n/reset\n\nred\n/exit\ngreen\n"
    alone = {}
    for stage in ("sft", "ppo"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        chat(replace(request_, stages=(stage,)), Terminal(quiet=True))
        alone[stage] = capsys.readouterr().out.splitlines()
        assert len(alone[stage]) == 3
        assert alone[stage][0] == alone[stage][2]

    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    chat(request_, Terminal(quiet=True))
    answers = capsys.readouterr().out.splitlines()
    assert answers[0::2] == [f"[SFT] {answer}" for answer in alone["sft"]]
    assert answers[1::2] == [f"[PPO] {answer}" for answer in alone["ppo"]]

    monkeypatch.setattr(sys, "stdin", io.StringIO("red\n"))
    chat(request_, Terminal(quiet=True, as_json=True))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["prompt"], line["stage"]) for line in lines] == [("red", "sft"), ("red", "ppo")]


def test_a_dry_run_lists_files_and_sizes_and_uploads_nothing(finished_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    arguments = ["push", "small", "--runs-dir", str(finished_run.parent), "--repo", "me/policy"]
    done = CliRunner().invoke(app, [*arguments, "--dry-run", "--base-model", "org/base"])
    assert done.exit_code == 0
    listed = dict(re.findall(r"^  (\S+) +(\S+ \S+)$", done.stdout, re.MULTILINE))
    assert {"README.md", "adapter_model.safetensors", "tokenizer.json"} <= listed.keys()
    assert "private repository me/policy" in done.stdout
    assert CliRunner().invoke(app, [*arguments, "--merge"]).exit_code == 4, "there is no token"
