"""The trial of the reward model: what is planted in the embedded world is found, and no more."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlhfctl.data.sources import load_comparisons
from rlhfctl.errors import DataError
from rlhfctl.recipe.load import load_recipe
from rlhfctl.results.io import to_json
from rlhfctl.run.monitor import NullMonitor
from rlhfctl.stages.evaluation.context import EvalContext
from rlhfctl.stages.evaluation.reward_model import benchmark_subsets, evaluate_reward_model
from rlhfctl.stages.shared.prompt_rows import PromptRows
from rlhfctl.stages.shared.reward_sources import RewardSources
from rlhfctl.stages.shared.stage_context import open_stage_context
from rlhfctl.world.gold import gold_features, gold_reward

BASE_RECIPE = Path(__file__).parents[3] / "recipes" / "base.yaml"
NOWHERE = Path("no") / "such" / "folder"  # nothing is read from it or written to it
LIKINGS = {
    "length": lambda prompt, text: float(len(text.split())),
    "correctness": lambda prompt, text: gold_features(prompt, text).correctness,
    "certainty": lambda prompt, text: float(gold_features(prompt, text).certain),
    "hedging": lambda prompt, text: float(gold_features(prompt, text).hedged),
    "gold": gold_reward,
}


def small_recipe(*overrides):
    return load_recipe(BASE_RECIPE, ["data.comparisons.max_rows=100", *overrides]).recipe


class Listening(NullMonitor):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


class Planted:
    """A reward model that gives twice what a function of prompt and response says, plus 3."""

    device = "cpu"
    normalizations = (SimpleNamespace(deviation=2.0),)

    def __init__(self, session, reward, questions):
        self.session = session
        self.reward = reward
        self.questions = questions
        self.pad_token_id = session.tokenizer.pad_token_id

    def raw_scores(self, batch):
        formatter = self.session.formatter
        scores = []
        for ids, at, response in zip(
            batch.ids.tolist(), batch.prompt_lengths.tolist(), batch.response_lists(), strict=True
        ):
            assert response[-1] in self.session.stop_token_ids
            question = self.questions[tuple(ids[:at])]
            scores.append(3.0 + 2.0 * self.reward(question, formatter.decode(response)))
        return torch.tensor(scores)


def trial(recipe, reward, monitor=None):
    session = open_stage_context(recipe)
    prompts = load_comparisons(recipe).held_out["prompt"]
    asked = [[{"role": "user", "content": "Where is Anna?"}], *prompts]
    questions = {
        tuple(ids): prompt[-1]["content"]
        for prompt, ids in zip(asked, session.formatter.prompts_ids(asked), strict=True)
    }
    monitor = monitor or NullMonitor()
    subsets = benchmark_subsets(recipe, asked[0])
    context = EvalContext(
        session,
        {"rm": NOWHERE},
        Planted(session, reward, questions),  # type: ignore[arg-type]
        asked,
        [],
        {},
        NOWHERE,
        monitor,
        RewardSources.open(recipe.ppo),
        PromptRows(asked),
        subsets=subsets,
    )
    return to_json(evaluate_reward_model(context))


@pytest.fixture(scope="module")
def planted():
    """Each reward's metrics on the same 300 held-out comparisons."""
    recipe = small_recipe("data.comparisons.max_rows=1000", "data.comparisons.held_out=0.3")
    return {name: trial(recipe, reward) for name, reward in LIKINGS.items()}


def test_a_reward_that_likes_length_is_shown_as_such(planted):
    length = planted["length"]["length"]
    assert length["score_length_correlation_low"] > 0.95
    assert length["longer_chosen"]["accuracy"] > 0.95
    assert length["shorter_chosen"]["accuracy"] < 0.05
    probes = planted["length"]["probes"]
    for probe in ("filler", "repetition"):
        assert probes[probe]["change_low"] > 0
    # Thirteen words of filler, on the scale of scores.
    assert probes["filler"]["change"] == pytest.approx(13.0)


def test_a_reward_that_looks_at_the_answer_alone_is_not(planted):
    metrics = planted["correctness"]
    assert metrics["length"]["score_length_correlation_high"] < 0
    assert metrics["length"]["equal_length"]["accuracy"] > 0.5
    for probe in ("filler", "repetition", "false_certainty", "hedge_removed"):
        assert metrics["probes"][probe]["change"] == pytest.approx(0.0, abs=1e-6), probe
    assert metrics["probes"]["other_prompt"]["change_high"] < 0


def test_certainty_and_hedging_are_found_where_they_are_liked(planted):
    assert planted["certainty"]["probes"]["false_certainty"]["change_low"] > 0.5
    assert planted["certainty"]["probes"]["filler"]["change"] == 0.0
    hedged = planted["hedging"]["probes"]["hedge_removed"]
    assert (hedged["change"], hedged["change_high"]) == (-1.0, -1.0)
    assert 5 < hedged["responses"] < 128


def test_the_true_reward_falls_at_every_spoiling_but_a_lost_hedge(planted):
    probes = planted["gold"]["probes"]
    for probe in ("filler", "repetition", "false_certainty", "other_prompt"):
        assert probes[probe]["change_high"] < 0, probe
    assert planted["gold"]["overall"]["low"] > 0.7


def test_slices_and_bins_hold_every_pair_once(planted):
    for metrics in planted.values():
        pairs = metrics["overall"]["pairs"]
        for name in ("per_annotator", "per_source"):
            assert sum(group["pairs"] for group in metrics[name].values()) == pairs
        assert sum(part["pairs"] for part in metrics["calibration"]["bins"]) == pairs
        assert "per_margin" not in metrics
    assert set(planted["gold"]["per_annotator"]) == {
        *("ada", "bruno", "chloe", "david", "elena", "felix")
    }


def test_the_trial_agrees_with_the_reward_models_own_metrics(tiny_run):
    tiny_run.stage("eval")
    trained, tried = tiny_run.metrics["rm"], tiny_run.metrics["eval"]["reward_model"]
    assert tried["overall"]["accuracy"] == trained["accuracy"]
    assert tried["length"]["longer_wins"]["accuracy"] == trained["length_accuracy"]
    assert {name: group["pairs"] for name, group in tried["per_annotator"].items()} == {
        name: group["pairs"] for name, group in trained["per_annotator"].items()
    }


def test_subsets_of_a_file_are_judged_and_rows_too_long_are_told(tmp_path):
    rows = [
        {"subset": "short", "prompt": "Where is Anna?", "chosen": "Oslo.", "rejected": "In Rome."},
        {"subset": "short", "prompt": "Where is Anna?", "chosen": "In a box.", "rejected": "No."},
        {"subset": "long", "prompt": "Where is Anna?", "chosen": "a b", "rejected": "c " * 200},
        {"subset": "other", "prompt": "Where is Anna?", "chosen": "I know.", "rejected": "Know."},
    ]
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = small_recipe(f"evaluation.reward_bench={path}", "evaluation.probes=0")
    monitor = Listening()
    metrics = trial(recipe, LIKINGS["length"], monitor)
    assert {name: part["accuracy"] for name, part in metrics["subsets"].items()} == {
        "short": 0.5,
        "other": 1.0,
    }
    assert (metrics["subsets_mean"], metrics["subsets_file"]) == (0.75, str(path))
    assert "probes" not in metrics
    (told,) = monitor.warnings
    assert "1 of 4 rows are longer" in told


SAMPLE = Path(__file__).parent / "reward_bench_2.jsonl"
"""Made rows in the form of RewardBench 2: two subsets of best of four, and three prompts of Ties."""


def test_rewardbench_2_takes_the_right_response_against_three_and_scores_ties():
    recipe = small_recipe(f"evaluation.reward_bench={SAMPLE}", "evaluation.probes=0")
    monitor = Listening()
    metrics = trial(recipe, LIKINGS["length"], monitor)
    # Longer responses score higher; in one of the two prompts of Focus a wrong one is the longest.
    assert {name: part["accuracy"] for name, part in metrics["subsets"].items()} == {
        "Factuality": 1.0,
        "Focus": 0.5,
    }
    ties = metrics["ties"]
    assert ties["prompts"] == 1
    # Right responses of 3 and 4 words, wrong ones of 1 and 2; the reference has 5 against 1.
    assert (ties["accuracy"], ties["reference_accuracy"]) == (1.0, 1.0)
    assert (ties["margin_accuracy"], ties["margin_accuracy_hard"]) == (0.0, 0.0)
    assert ties["score"] == pytest.approx(0.6)
    assert metrics["subsets_mean"] == pytest.approx((1.0 + 0.5 + 0.6) / 3)
    (told,) = monitor.warnings
    assert "1 of 6 rows cannot be used: 1 id of the subset Ties" in told


def test_harmless_edits_turn_no_preference_of_a_sound_reward_and_many_of_a_fragile_one(planted):
    for name in ("length", "certainty", "gold"):
        edits = planted[name]["harmless_edits"]
        assert edits["whitespace"]["flipped"] == 0.0
        assert edits["whitespace"]["change"] == pytest.approx(0.0, abs=1e-6)
        assert edits["whitespace"]["flipped_high"] < 0.1
    recipe = small_recipe("data.comparisons.max_rows=400", "data.comparisons.held_out=0.3")
    fragile = trial(recipe, lambda prompt, text: sum(map(str.isupper, text)) + 0.01 * len(text))
    edits = fragile["harmless_edits"]
    assert edits["case"]["flipped_low"] > 0.2
    # Two swapped letters leave their number and their case.
    assert edits["typos"]["flipped"] == 0.0
    assert edits["case"]["change"] > 0.5
    assert edits["case"]["comparisons"] > 100


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "there is no such file"), ('{"prompt": "a"}\n', "chosen, rejected are missing")],
)
def test_a_file_of_subsets_that_cannot_be_used_is_named_by_its_key(tmp_path, content, said):
    path = tmp_path / "bench.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=said) as raised:
        benchmark_subsets(small_recipe(f"evaluation.reward_bench={path}"), "a prompt")
    assert raised.value.where.startswith("evaluation.reward_bench: ")


def test_margins_of_the_data_make_slices(tmp_path):
    recipe = small_recipe()
    held = load_comparisons(recipe)
    rows = [*held.train, *held.held_out]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(row | {"margin": at % 4}) + "\n" for at, row in enumerate(rows))
    )
    recipe = small_recipe(
        f"data.comparisons.source={path}",
        "data.comparisons.held_out=0.5",
        "evaluation.probes=0",
        "evaluation.num_comparisons=40",
    )
    metrics = trial(recipe, gold_reward)
    assert metrics["overall"]["pairs"] == 40
    assert sum(group["pairs"] for group in metrics["per_margin"].values()) == 40
    assert len(metrics["per_margin"]) > 2
