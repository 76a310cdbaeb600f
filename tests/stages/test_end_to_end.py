"""The real pipeline through the command line: `run`, the four commands by hand, wrong inputs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfctl.run.files import digest
from rlhfctl.stage_table import STAGES
from tests import forked

BASE_RECIPE = Path(__file__).parents[2] / "recipes" / "base.yaml"
TINY = {
    "data.demonstrations.max_rows": 96,
    "data.comparisons.max_rows": 96,
    "data.prompts.max_rows": 160,
    "reward_model.calibration_samples": 32,
    "ppo.episodes": 32,
    "ppo.rollout_batch_size": 16,
    "ppo.minibatch_size": 8,
    "ppo.forward_batch_size": 8,
    "generation.max_new_tokens": 16,
    "ppo.gate": "warn",
    "evaluation.num_prompts": 12,
    "evaluation.best_of_n": 2,
    "evaluation.best_of_n_prompts": 4,
}
SETTINGS = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
TIMES = {"seconds", "started", "tokens_per_second", "episodes_per_second"}
TIMES |= {"rollout_seconds", "update_seconds", "memory_bytes"}


def rlhfctl(folder, *arguments):
    return forked.rlhfctl(folder, arguments)


@pytest.fixture(scope="session")
def finished(made_once):
    """A folder with a finished tiny run in runs/base, and the JSON that `run` printed."""

    def make(folder):
        result = rlhfctl(folder, "run", BASE_RECIPE, *SETTINGS, "--json")
        assert result.returncode == 0, result.stderr
        return folder, json.loads(result.stdout)

    return made_once("finished", make)


def timeless(value):
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return value


def metrics_of(folder):
    manifest = json.loads((folder / "runs" / "base" / "manifest.json").read_text())
    return {name: timeless(stage["metrics"]) for name, stage in manifest["stages"].items()}


def test_run_makes_every_checkpoint_the_metrics_and_the_report(finished):
    folder, printed = finished
    assert [stage["stage"] for stage in printed["stages"]] == ["sft", "rm", "ppo", "eval"]
    run = folder / "runs" / "base"
    for name in (
        "sft/adapter_model.safetensors",
        "rm/score_normalization.json",
        "ppo/critic/adapter_model.safetensors",
        "ppo/samples.jsonl",
        "eval/metrics.json",
        "eval/scores.json",
        "logs/ppo.jsonl",
        "recipe.yaml",
        "report.html",
    ):
        assert (run / name).is_file(), name
    best_of_n = json.loads((run / "eval" / "metrics.json").read_text())["best_of_n"]
    for judge in ("proxy", "gold"):
        assert [row["n"] for row in best_of_n[judge]] == [1, 2]
    assert (best_of_n["samples"], best_of_n["prompts"]) == (2, 4)
    look, first = map(json.loads, (run / "logs" / "ppo.jsonl").read_text().splitlines()[:2])
    assert (look["step"], look["held_out_kl"]) == (0, 0.0)
    assert first["kl"] == 0.0
    assert not list(run.rglob("training_args.bin"))


def test_the_reward_model_stands_trial(finished):
    metrics = json.loads((finished[0] / "runs" / "base" / "eval" / "metrics.json").read_text())
    trial = metrics["reward_model"]
    assert {"overall", "per_annotator", "per_source", "calibration", "length", "probes"} <= set(
        trial
    )
    assert trial["overall"]["accuracy"] == metrics_of(finished[0])["rm"]["accuracy"]
    assert 0 <= trial["calibration"]["ece"] <= 1


def test_the_four_commands_by_hand_give_the_same_metrics(finished, tmp_path):
    steps = [rlhfctl(tmp_path, "sft", BASE_RECIPE, *SETTINGS)]
    steps += [rlhfctl(tmp_path, command) for command in ("train-rm", "ppo", "eval")]
    for step in steps:
        assert step.returncode == 0, step.stderr
    assert metrics_of(tmp_path) == metrics_of(finished[0])


def test_a_finished_run_is_skipped_and_says_so(finished):
    result = rlhfctl(finished[0], "run")
    assert result.returncode == 0
    for stage in STAGES:
        assert f"{stage.title}: up to date" in result.stderr


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_base(run):
    edit_json(run / "sft" / "rlhfctl.json", base_fingerprint="0" * 64)


def other_rank(run):
    edit_json(run / "rm" / "adapter_config.json", r=4)


def cut_weights(run):
    path = run / "sft" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


CHECKPOINTS = [
    ("a checkpoint of another base", other_base, 7, "the base model"),
    ("adapters of two ranks", other_rank, 7, "rank 4"),
    ("weights cut short", cut_weights, 7, "cannot be read"),
]


@pytest.mark.parametrize(
    ("change", "code", "said"), [case[1:] for case in CHECKPOINTS], ids=[c[0] for c in CHECKPOINTS]
)
def test_checkpoints_that_do_not_fit_end_in_their_code(finished, tmp_path, change, code, said):
    given = tmp_path / "given"
    shutil.copytree(finished[0] / "runs" / "base", given)
    (given / "manifest.json").unlink()  # it would tell of the change by the folder's digest
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    change(given)
    result = rlhfctl(tmp_path, "ppo", "--sft", given / "sft", "--rm", given / "rm", "--force")
    assert_clear(result, code, said)
    for stage in ("sft", "rm", "ppo", "eval"):
        kept = tmp_path / "runs" / "base" / stage
        assert digest(kept) == digest(finished[0] / "runs" / "base" / stage)


def write(name, text):
    def prepare(folder):
        (folder / name).write_text(text)

    return prepare


def nothing(folder):
    """The inputs are wrong as they are."""


def remote_code(folder):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "x.Y"}}')


def data(kind, source, **more):
    keys = {f"data.{kind}.source": source, **more}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


OWN_DATA = [
    word for kind in ("demonstrations", "comparisons", "prompts") for word in data(kind, "embedded")
]
"""Data that a command names itself, as one with another model than the embedded one must."""
GOOD_PAIR = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
TIED_PAIRS = "".join(
    f'{{"prompt": "question {n}", "chosen": "b", "rejected": "b"}}\n' for n in range(9)
)
WRONG: dict[str, tuple[Callable[[Path], object], list[str | Path], int, str]] = {
    "a recipe that is not there": (nothing, ["sft", "no.yaml"], 2, "no.yaml"),
    "bad YAML": (write("r.yaml", "name: [x\n"), ["sft", "r.yaml"], 2, "r.yaml:"),
    "an unknown key": (
        write("r.yaml", "ppo:\n  learning_rat: 1e-5\n"),
        ["sft", "r.yaml"],
        2,
        "r.yaml:2: ppo.learning_rat: unknown key; did you mean learning_rate?",
    ),
    "a wrong type": (write("r.yaml", "ppo:\n  beta: much\n"), ["sft", "r.yaml"], 2, "ppo.beta"),
    "a key twice": (write("r.yaml", "seed: 1\nseed: 2\n"), ["sft", "r.yaml"], 2, "r.yaml:2"),
    "a senseless pair": (
        write("r.yaml", "lora: null\nmodel: {quantization: 4bit}\n"),
        ["sft", "r.yaml"],
        2,
        "lora: null",
    ),
    "an unknown option": (nothing, ["sft", "--learning-rat", "1"], 2, "--learning-rate"),
    "an unknown stop token": (
        nothing,
        ["sft", BASE_RECIPE, "--set", "generation.stop_tokens=[nonesuch]"],
        2,
        "generation.stop_tokens",
    ),
    "a bad gate": (
        nothing,
        ["sft", BASE_RECIPE, "--set", "evaluation.gates={win_rate: high}"],
        2,
        "win_rate",
    ),
    "a data file that is not there": (
        nothing,
        ["sft", BASE_RECIPE, "--dataset", "./no.jsonl"],
        3,
        "no.jsonl",
    ),
    "an absent column": (
        write("d.jsonl", '{"query": "a", "reply": "b"}\n'),
        ["sft", BASE_RECIPE, "--dataset", "d.jsonl"],
        3,
        "query",
    ),
    "an empty set": (
        write("d.jsonl", ""),
        ["sft", BASE_RECIPE, "--dataset", "d.jsonl"],
        3,
        "empty",
    ),
    "a broken line": (
        write("d.jsonl", GOOD_PAIR + '{"prompt": \n'),
        ["sft", BASE_RECIPE, "--dataset", "d.jsonl"],
        3,
        "d.jsonl:2",
    ),
    "subsets that are not there": (
        nothing,
        ["run", BASE_RECIPE, "--set", "evaluation.reward_bench=no.jsonl"],
        3,
        "evaluation.reward_bench",
    ),
    "a model folder without a model": (
        nothing,
        ["sft", BASE_RECIPE, "--model", "./nowhere", *OWN_DATA],
        4,
        "nowhere",
    ),
    "a model on a hub out of reach": (
        nothing,
        ["sft", BASE_RECIPE, "--model", "someone/some-model", *OWN_DATA],
        4,
        "someone/some-model",
    ),
    "data on a hub out of reach": (
        nothing,
        ["sft", BASE_RECIPE, "--dataset", "someone/some-data"],
        4,
        "someone/some-data",
    ),
    "runs where none can be": (
        write("file", ""),
        ["sft", BASE_RECIPE, "--runs-dir", "file/runs"],
        4,
        "file",
    ),
    "a missing stage": (nothing, ["train-rm", BASE_RECIPE], 7, "rlhfctl sft"),
    "a checkpoint that is not there": (
        nothing,
        ["train-rm", BASE_RECIPE, "--sft", "./no"],
        7,
        "no",
    ),
    "a config that runs code": (
        remote_code,
        ["sft", BASE_RECIPE, "--model", "./model", *OWN_DATA],
        11,
        "auto_map",
    ),
    "a data script": (
        write("d.py", "print('run')\n"),
        ["sft", BASE_RECIPE, "--dataset", "d.py"],
        11,
        "d.py",
    ),
}


def assert_clear(result, code, said):
    assert result.returncode == code, result.stderr
    assert said in result.stderr.replace("\n", " ") or said in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 15


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_end_in_their_code_with_a_clear_sentence(tmp_path, name):
    prepare, arguments, code, said = WRONG[name]
    prepare(tmp_path)
    assert_clear(rlhfctl(tmp_path, *arguments), code, said)
    assert not list(tmp_path.rglob("manifest.json"))


def test_pairs_that_are_all_tied_end_in_3_with_their_count(finished, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    (tmp_path / "tied.jsonl").write_text(TIED_PAIRS)
    result = rlhfctl(tmp_path, "train-rm", "--dataset", "tied.jsonl")
    assert_clear(result, 3, "9")
    for stage in ("sft", "rm", "ppo", "eval"):
        kept = tmp_path / "runs" / "base" / stage
        assert digest(kept) == digest(finished[0] / "runs" / "base" / stage)


def test_a_reward_model_at_chance_stops_ppo_in_6_and_keeps_the_policy(finished, tmp_path):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    rm = tmp_path / "given"
    shutil.copytree(finished[0] / "runs" / "base" / "rm", rm)
    edit_json(rm / "metrics.json", accuracy=0.5, accuracy_low=0.4)
    result = rlhfctl(tmp_path, "ppo", "--rm", rm, "--set", "ppo.gate=refuse")
    assert_clear(result, 6, "above chance")
    kept = tmp_path / "runs" / "base" / "ppo"
    assert digest(kept) == digest(finished[0] / "runs" / "base" / "ppo")
